# ruff: noqa: E501 - a template's line break is written
"""Chat templates in the shape of those of well-known families: what they take, what they drop, when they refuse.

The wording and the special tokens are those of the tiny tokenizers; what differs among families is what counts.
"""

__all__ = ["TEMPLATES"]

QWEN3 = """
{%- if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content + '\\n' }}{% endif %}Functions:
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}<|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- set ns = namespace(last=messages | length - 1, found=false) %}
{%- for m in messages[::-1] %}{% if not ns.found and m.role == 'user' %}
{%- set ns.found = true %}{% set ns.last = messages | length - 1 - loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{%- set said = m.content if m.content is string else '' %}
{%- if m.role == 'user' or (m.role == 'system' and not loop.first) %}<|im_start|>{{ m.role }}
{{ said }}<|im_end|>
{% elif m.role == 'assistant' %}
{%- set thought = '' %}
{%- if m.reasoning_content is string %}{% set thought = m.reasoning_content %}
{%- elif '</think>' in said %}
{%- set thought = said.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
{%- set said = said.split('</think>')[-1].lstrip('\\n') %}{% endif %}<|im_start|>assistant
{% if loop.index0 > ns.last and (loop.last or thought) %}<think>
{{ thought }}
</think>

{% endif %}{{ said }}
{%- for call in m.tool_calls or [] %}{% set f = call.function or call %}
<call>{"name": "{{ f.name }}", "arguments": {{ f.arguments if f.arguments is string else f.arguments | tojson }}}</call>
{%- endfor %}<|im_end|>
{% elif m.role == 'tool' %}<|im_start|>user
<result>{{ said }}</result><|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}{% endif %}"""

GEMMA = """{{ bos_token }}
{%- if messages[0].role == 'system' %}
{%- set before = (messages[0].content if messages[0].content is string else messages[0].content[0].text) + '\\n\\n' %}
{%- set turns = messages[1:] %}
{%- else %}{% set before = '' %}{% set turns = messages %}{% endif %}
{%- for m in turns %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Turns have to alternate') }}{% endif %}<|im_start|>
{{- 'model' if m.role == 'assistant' else m.role }}
{{ before if loop.first }}
{%- if m.content is string %}{{ m.content | trim }}
{%- else %}{% for p in m.content %}
{%- if p.type == 'image' %}<start_of_image>{% elif p.type == 'text' %}{{ p.text | trim }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>model
{% endif %}"""

LLAMA = """{{ bos_token }}
{%- if date_string is not defined %}
{%- if strftime_now is defined %}{% set date_string = strftime_now('%d %b %Y') %}
{%- else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}
{%- if messages[0].role == 'system' %}{% set system = messages[0].content | trim %}{% set turns = messages[1:] %}
{%- else %}{% set system = '' %}{% set turns = messages %}{% endif %}<|im_start|>system

Date: {{ date_string }}

{{ system }}<|im_end|>
{%- if tools is not none and tools is defined and tools %}
{%- set first = turns[0].content | trim %}{% set turns = turns[1:] %}<|im_start|>user

Call one of these:
{% for t in tools %}{{ t | tojson(indent=4) }}

{% endfor %}{{ first }}<|im_end|>{% endif %}
{%- for m in turns %}
{%- if m.role not in ['tool', 'ipython'] and 'tool_calls' not in m %}<|im_start|>{{ m.role }}

{{ m.content | trim }}<|im_end|>
{%- elif 'tool_calls' in m %}
{%- if m.tool_calls | length != 1 %}{{ raise_exception('One call at a time') }}{% endif %}
{%- set f = m.tool_calls[0].function %}<|im_start|>assistant

{"name": "{{ f.name }}", "parameters": {{ f.arguments | tojson }}}<|im_end|>
{%- else %}<|im_start|>ipython

{{ m.content | tojson if m.content is mapping or m.content is iterable else m.content }}<|im_end|>
{%- endif %}{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant

{% endif %}"""

MISTRAL = """
{%- if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set turns = messages[1:] %}
{%- else %}{% set turns = messages %}{% endif %}
{%- set users = turns | selectattr('role', 'equalto', 'user') | list %}
{{- bos_token }}
{%- for m in turns %}
{%- if m['role'] == 'user' %}
{%- if tools is not none and m == users[-1] %}[TOOLS] [
{%- for t in tools %}{{ t | tojson }}{{ ', ' if not loop.last }}{% endfor %}][/TOOLS]{% endif %}
{%- if loop.last and system is defined or loop.first and system is defined %}{{ '[INST] ' + system + '\\n\\n' + m['content'] + '[/INST]' }}
{%- else %}{{ '[INST] ' + m['content'] + '[/INST]' }}{% endif %}
{%- elif m['role'] == 'assistant' and m.tool_calls is defined and m.tool_calls %}[CALLS] [
{%- for c in m.tool_calls %}
{%- if c.id is not defined or c.id | length != 9 %}{{ raise_exception('A call has an id of nine signs') }}{% endif %}
{{- c.function | tojson }}, {{ c.id }}{% endfor %}]{{ eos_token }}
{%- elif m['role'] == 'assistant' %}{{ ' ' + m['content'] | trim + eos_token }}
{%- elif m['role'] == 'tool' %}[RESULT] {{ m['content'] }}, {{ m['tool_call_id'] }}[/RESULT]
{%- else %}{{ raise_exception('Only user, assistant and tool turns') }}{% endif %}
{%- endfor %}"""

DEEPSEEK = """
{%- set ns = namespace(system='') %}
{%- for m in messages %}{% if m['role'] == 'system' %}{% set ns.system = ns.system + m['content'] %}{% endif %}{% endfor %}
{{- bos_token }}{{ ns.system }}
{%- for m in messages %}
{%- if m['role'] == 'user' %}{{ '<user>' + m['content'] }}
{%- elif m['role'] == 'assistant' and 'tool_calls' in m %}<assistant>
{%- for c in m['tool_calls'] %}{{ '<call>' + c['function']['name'] + '\\n' + c['function']['arguments'] + '</call>' }}{% endfor %}{{ eos_token }}
{%- elif m['role'] == 'assistant' %}
{%- set said = m['content'] %}{% if '</think>' in said %}{% set said = said.split('</think>')[-1] %}{% endif %}
{{- '<assistant>' + said + eos_token }}
{%- elif m['role'] == 'tool' %}{{ '<result>' + m['content'] + '</result>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<assistant><think>
{% endif %}"""

PHI = """
{%- for m in messages %}
{%- if m['role'] == 'system' and 'tools' in m and m['tools'] is not none %}{{ '<|system|>' + m['content'] + '<|tool|>' + m['tools'] + '<|end|>' }}
{%- else %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% else %}{{ eos_token }}{% endif %}"""

GPT_OSS = """
{%- set first = messages[0].content if messages[0].role in ['developer', 'system'] else '' %}
{%- set turns = messages[1:] if messages[0].role in ['developer', 'system'] else messages %}<|im_start|>system
Today: {{ strftime_now('%Y-%m-%d') }}
Effort: {{ reasoning_effort | default('medium') }}<|im_end|>
{%- if first or tools %}<|im_start|>developer
{{ first }}{% for t in tools or [] %}
// {{ t.function.description }}
type {{ t.function.name }} = (_: {
{%- for name, one in t.function.parameters.properties.items() %}{{ name }}: {{ one.type }}, // {{ one.description }}{% endfor %}});
{%- endfor %}<|im_end|>{% endif %}
{%- for m in turns %}
{%- if m.role == 'assistant' and 'tool_calls' in m %}
{%- set c = m.tool_calls[0].function %}<|im_start|>assistant to={{ c.name }}
{{ c.arguments | tojson }}<|im_end|>
{%- elif m.role == 'assistant' %}
{%- if loop.last and 'thinking' in m %}<|im_start|>assistant/analysis
{{ m.thinking }}<|im_end|>{% endif %}<|im_start|>assistant/final
{{ m.content }}{{ eos_token if loop.last and not add_generation_prompt else '<|im_end|>' }}
{%- elif m.role == 'tool' %}<|im_start|>tool
{{ m.content | tojson }}<|im_end|>
{%- elif m.role == 'user' %}<|im_start|>user
{{ m.content }}<|im_end|>{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant{% endif %}"""

TEMPLATES = {
    "qwen3": QWEN3,
    "gemma": GEMMA,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "deepseek": DEEPSEEK,
    "phi": PHI,
    "gpt-oss": GPT_OSS,
}
