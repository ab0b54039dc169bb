"""Seccomp: takes system calls from this process that reading a file never needs.

Denied calls fail with EPERM. New calls of future kernels that start processes or open connections would have to be added here;
Landlock and the resource limits then still hold.
"""

import ctypes
import errno
import os
import struct

from shared.prctl import set_seccomp_filter

# AUDIT_ARCH of seccomp_data, and the number of each denied call, by machine. Calls from 424 on have one number everywhere.
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_COMMON = {
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "pidfd_open": 434,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "mount_setattr": 442,
}
_DENIED = {
    "x86_64": _COMMON
    | {"socket": 41, "connect": 42, "accept": 43, "sendto": 44, "sendmsg": 46, "bind": 49, "listen": 50, "socketpair": 53}
    | {"accept4": 288, "sendmmsg": 307}
    | {"fork": 57, "vfork": 58, "execve": 59, "execveat": 322}
    | {"kill": 62, "tkill": 200, "tgkill": 234, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297}
    | {"ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312}
    | {"chmod": 90, "fchmod": 91, "fchmodat": 268, "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260}
    | {"utime": 132, "utimes": 235, "futimesat": 261, "utimensat": 280}
    | {"setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199}
    | {"mount": 165, "umount2": 166, "chroot": 161, "pivot_root": 155, "unshare": 272, "setns": 308}
    | {"shmget": 29, "shmat": 30, "semget": 64, "msgget": 68, "mq_open": 240}
    | {"add_key": 248, "request_key": 249, "keyctl": 250, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323}
    | {"open_by_handle_at": 304, "inotify_init": 253, "inotify_init1": 294, "fanotify_init": 300, "io_setup": 206}
    | {"personality": 135, "prlimit64": 302, "setrlimit": 160, "modify_ldt": 154, "kexec_load": 246, "finit_module": 313},
    "aarch64": _COMMON
    | {"socket": 198, "connect": 203, "accept": 202, "sendto": 206, "sendmsg": 211, "bind": 200, "listen": 201, "socketpair": 199}
    | {"accept4": 242, "sendmmsg": 269}
    | {"execve": 221, "execveat": 281}
    | {"kill": 129, "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240}
    | {"ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272}
    | {"fchmod": 52, "fchmodat": 53, "fchown": 55, "fchownat": 54, "utimensat": 88}
    | {"setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "removexattr": 14, "lremovexattr": 15, "fremovexattr": 16}
    | {"mount": 40, "umount2": 39, "chroot": 51, "pivot_root": 41, "unshare": 97, "setns": 268}
    | {"shmget": 194, "shmat": 196, "semget": 190, "msgget": 186, "mq_open": 180}
    | {"add_key": 217, "request_key": 218, "keyctl": 219, "bpf": 280, "perf_event_open": 241, "userfaultfd": 282}
    | {"open_by_handle_at": 265, "inotify_init1": 26, "fanotify_init": 262, "io_setup": 0}
    | {"personality": 92, "prlimit64": 261, "setrlimit": 164, "kexec_load": 104, "finit_module": 273},
}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_CLONE_THREAD = 0x00010000
_X32 = 0x40000000  # calls of another interface of the same processor, with numbers of their own

_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_DENY, _UNKNOWN = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS

# Instructions of the filter, and offsets in the seccomp_data that it examines.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16


def is_supported() -> bool:
    """Whether there is a filter for this machine."""
    return os.uname().machine in _ARCHITECTURES


def deny_dangerous_calls() -> bool:
    """Deny connections, programs, processes, signals and more to this process. Threads stay possible.

    Returns False if the kernel cannot do that. The process must not be able to gain privileges.
    """
    if not is_supported():
        return False
    program = _program(os.uname().machine)
    return set_seccomp_filter(ctypes.c_char_p(program), len(program) // 8)


def _program(machine: str) -> bytes:
    instructions = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_EQUAL, _ARCHITECTURES[machine], 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
        _instruction(_AT_LEAST, _X32, 0, 1),
        _instruction(_RETURN, _DENY),
        # The C library then uses clone, whose flags can be examined.
        _instruction(_EQUAL, _CLONE3, 0, 1),
        _instruction(_RETURN, _UNKNOWN),
    ]
    for number in _DENIED[machine].values():
        instructions += [_instruction(_EQUAL, number, 0, 1), _instruction(_RETURN, _DENY)]
    instructions += [
        _instruction(_EQUAL, _CLONE[machine], 0, 3),
        _instruction(_LOAD, _FIRST_ARGUMENT),
        _instruction(_ANY_BIT, _CLONE_THREAD, 1, 0),
        _instruction(_RETURN, _DENY),
        _instruction(_RETURN, _ALLOW),
    ]
    return b"".join(instructions)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
