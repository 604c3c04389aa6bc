"""Where the time of a call goes: stamps of timed kernels, the machine's limits, tables of both."""
