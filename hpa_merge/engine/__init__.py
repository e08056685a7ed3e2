"""One merge, or several that read the inputs once: request, setup, plan, memory, calibration run, loop, output."""
