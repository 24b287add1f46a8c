import json, os, random, secrets, socket, sys, tempfile, time, uuid

try:
    import numpy
except ImportError:
    numpy = None


def vmrepl_seed():
    """What a user may have done before the copies were made."""
    global seeded, generator, legacy, before
    random.seed(7)
    seeded = random.Random(7)
    if numpy is not None:
        numpy.random.seed(7)
        generator = numpy.random.default_rng()
    before = time.monotonic_ns(), time.perf_counter_ns(), time.process_time_ns()


def vmrepl_draw():
    found = {
        "os.urandom": os.urandom(16).hex(),
        "secrets": secrets.token_hex(16),
        "uuid.uuid4": str(uuid.uuid4()),
        "uuid.uuid1": str(uuid.uuid1()),
        "random.SystemRandom": random.SystemRandom().random(),
        "random, seeded by the user": random.random(),
        "random.Random(7) of the user": seeded.random(),
        "names of temporary files": os.path.basename(tempfile.mktemp()),
        "hostname": socket.gethostname(),
        "process id": os.getpid(),
        "address of an object": id(vmrepl_draw),
        "hash of a string": hash("vmrepl"),
        "boot id": open("/proc/sys/kernel/random/boot_id").read().strip(),
    }
    try:
        import ssl
        found["ssl.RAND_bytes"] = ssl.RAND_bytes(16).hex()
    except ImportError:
        pass
    if numpy is not None:
        found["numpy.random, seeded by the user"] = float(numpy.random.random())
        found["numpy Generator of the user"] = float(generator.random())
    random.seed()
    if numpy is not None:
        numpy.random.seed()
        found["numpy.random, never seeded"] = float(numpy.random.random())
    found["random, never seeded"] = random.random()
    now = time.monotonic_ns(), time.perf_counter_ns(), time.process_time_ns()
    clocks = {"wall_ns": time.time_ns(), "backwards": any(n < b for n, b in zip(now, before))}
    print(json.dumps({"found": found, "clocks": clocks}))
