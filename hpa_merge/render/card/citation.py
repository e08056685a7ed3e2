"""Whose method it is."""

__all__ = ["BIBTEX", "PAPERS"]

BIBTEX = """\
@inproceedings{wang2026harmonious,
  title     = {Harmonious Parameter Adaptation in Continual Visual Instruction Tuning for Safety-Aligned {MLLMs}},
  author    = {Wang, Ziqi and Che, Chang and Wang, Qi and Ma, Hui and Shi, Zenglin and Snoek, Cees G. M. and \
Wang, Meng},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2026},
  note      = {arXiv:2511.20158}
}"""

PAPERS = {
    "hpa": "[Harmonious Parameter Adaptation](https://arxiv.org/abs/2511.20158) (Wang et al., CVPR 2026)",
    "linear": "interpolation of the weights ([Lee et al.](https://arxiv.org/abs/2410.07571), "
    "[Farn et al.](https://arxiv.org/abs/2412.19512))",
    "safe-delta": "[Safe Delta](https://arxiv.org/abs/2505.12038) (Lu et al.)",
    "model-tailor": "[Model Tailor](https://arxiv.org/abs/2402.12048) (Zhu et al.)",
    "blocks": "whole blocks put back, as in [Li et al.](https://arxiv.org/abs/2408.17003)",
    "random": "a control: as many columns as Harmonious Parameter Adaptation puts back, but random ones",
    "energy": "a control: as many columns as Harmonious Parameter Adaptation puts back, but those that changed most",
}
"""What each method is, and where it comes from."""
