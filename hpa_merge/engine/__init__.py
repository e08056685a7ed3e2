"""One merge, or several from one read of the inputs: request, setup, plan, memory, calibration run, loop, output."""
