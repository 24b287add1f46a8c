"""Compile Python sources to files beside nothing: run by the guest's own interpreter while the image is built.

usage: bytecode.py SOURCE_ROOT TARGET_ROOT GUEST_ROOT JOBS < list of relative paths
Each source is compiled for the place that it has in the guest, without checks of time stamps, which the image does not keep.
"""

import os
import py_compile
import sys


def compile_one(source_root: str, target_root: str, guest_root: str, relative: str) -> None:
    folder, name = os.path.split(relative)
    target = os.path.join(target_root, folder, "__pycache__", f"{name[:-3]}.{sys.implementation.cache_tag}.pyc")
    try:
        py_compile.compile(
            os.path.join(source_root, relative),
            cfile=target,
            dfile=os.path.join(guest_root, relative),
            doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
    except (py_compile.PyCompileError, ValueError, RecursionError) as error:
        # Packages carry files for other Python versions and for tests of broken syntax; an import would say the same.
        print("skipped", relative, type(error).__name__, flush=True)


def main() -> None:
    source_root, target_root, guest_root, jobs = sys.argv[1:]
    paths = sys.stdin.read().splitlines()
    for job in range(int(jobs)):
        if os.fork() == 0:
            status = 1
            try:
                for number, relative in enumerate(paths[job :: int(jobs)]):
                    compile_one(source_root, target_root, guest_root, relative)
                    if number % 20 == 19:
                        print("compiled 20", flush=True)
                status = 0
            finally:
                os._exit(status)
    failed = any([os.wait()[1] for _ in range(int(jobs))])
    sys.exit(1 if failed else 0)


main()
