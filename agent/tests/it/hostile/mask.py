# Runs a program in which some system calls fail: mask.py ERRNO CALL[:ARGUMENT=VALUE],... PROGRAM ARGUMENTS...
# With an argument, only calls fail whose argument of that number has that value.
import ctypes, os, struct, sys

LOAD, JUMP_IF_SAME, RETURN = 0x20, 0x15, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000


def step(code, yes, no, value):
    return struct.pack("HBBI", code, yes, no, value)


def main():
    number, masked, program = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    steps = []
    for one in masked.split(","):
        call, _, condition = one.partition(":")
        rest = []
        if condition:
            argument, _, value = condition.partition("=")
            rest = [step(LOAD, 0, 0, 16 + 8 * int(argument)), step(JUMP_IF_SAME, 0, 1, int(value))]
        rest.append(step(RETURN, 0, 0, FAIL | number))
        steps += [step(LOAD, 0, 0, 0), step(JUMP_IF_SAME, 0, len(rest), int(call)), *rest]
    steps.append(step(RETURN, 0, 0, ALLOW))
    code = ctypes.create_string_buffer(b"".join(steps))
    filter_ = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code))
    # Root may do this without `no_new_privs`, so that nothing else changes.
    if ctypes.CDLL(None).prctl(22, 2, filter_, 0, 0) != 0:
        sys.exit("the filter was refused")
    os.execv(program[0], program)


main()
