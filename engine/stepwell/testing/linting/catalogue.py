"""What is known of names outside of a project: which are no part of a workflow, and what to use in their place.

A name stands for itself and, when it ends in a dot, for all that begins with it. The longest entry decides, and one
with no rule is harmless.
"""

from __future__ import annotations

__all__ = ["NEEDS_ARGUMENTS", "READS", "rule_of"]

_HARMLESS = ""

_CLOCKS = """
time.time time.time_ns time.monotonic time.monotonic_ns time.perf_counter time.perf_counter_ns time.process_time
time.process_time_ns time.thread_time time.thread_time_ns time.clock_gettime time.clock_gettime_ns time.localtime
time.gmtime time.ctime time.asctime time.strftime time.sleep timeit.default_timer datetime.datetime.now
datetime.datetime.utcnow datetime.datetime.today datetime.date.today pandas.Timestamp.now pandas.Timestamp.today
pandas.Timestamp.utcnow arrow.now arrow.utcnow pendulum.now pendulum.today pendulum.tomorrow pendulum.yesterday
django.utils.timezone.now django.utils.timezone.localdate whenever.Instant.now whenever.ZonedDateTime.now
asyncio.sleep trio.sleep anyio.sleep gevent.sleep eventlet.sleep
"""
_RANDOM = """
random. random.Random random.SystemRandom secrets. secrets.SystemRandom uuid.uuid1 uuid.uuid4 uuid.uuid6 uuid.uuid7
uuid.uuid8 uuid.getnode os.urandom os.getrandom numpy.random. numpy.random.default_rng numpy.random.RandomState
numpy.random.SeedSequence faker.Faker ulid. nanoid. shortuuid. uuid6. uuid_utils. cuid. Crypto.Random. ssl.RAND_bytes
"""
_HASHES = "builtins.hash builtins.id"
_THREADS = """
threading. _thread. concurrent.futures. multiprocessing. asyncio. queue. signal.signal signal.alarm signal.setitimer
sched. gevent. eventlet. trio. anyio. joblib. atexit.
"""
_ENVIRONMENT = """
os.environ os.environ. os.environb os.environb. os.getenv os.getenvb os.putenv os.unsetenv os.getcwd os.getcwdb os.chdir
os.getpid os.getppid os.getuid os.geteuid os.getgid os.getlogin os.uname os.cpu_count os.getloadavg os.path.abspath
os.path.expanduser os.path.expandvars sys.argv sys.argv. sys.platform socket.gethostname socket.getfqdn platform.
getpass.getuser locale.getlocale locale.getdefaultlocale multiprocessing.cpu_count dotenv. environs. decouple.config
pathlib.Path.cwd pathlib.Path.home pathlib.Path.expanduser pathlib.Path.absolute tempfile.gettempdir time.tzname
time.timezone time.daylight datetime.datetime.astimezone datetime.datetime.fromtimestamp datetime.date.fromtimestamp
"""
_IO = """
builtins.open builtins.print builtins.input builtins.breakpoint io.open io.open_code codecs.open gzip.open bz2.open
lzma.open tarfile.open zipfile.ZipFile mmap.mmap pprint.pprint traceback.print_exc traceback.print_stack sys.stdout
sys.stderr sys.stdin sys.stdout. sys.stderr. sys.stdin. shutil. subprocess. socket. select. selectors. http.client.
urllib.request. urllib3. requests. httpx. aiohttp. ftplib. smtplib. imaplib. poplib. telnetlib. xmlrpc.client. sqlite3.
dbm. shelve. fileinput. glob. tempfile. webbrowser. getpass.getpass syslog. psycopg. psycopg2. pymysql. MySQLdb.
mysql.connector. asyncpg. aiosqlite. duckdb. redis. pymongo. boto3. botocore. google.cloud. sqlalchemy.create_engine
sqlalchemy.orm.Session sqlalchemy.orm.sessionmaker kafka. confluent_kafka. pika. paramiko. openai. anthropic. stripe.
twilio. slack_sdk. elasticsearch. docker. kubernetes. os.listdir os.scandir os.walk os.stat os.lstat os.remove os.unlink
os.rename os.renames os.replace os.mkdir os.makedirs os.rmdir os.removedirs os.open os.read os.write os.close os.fsync
os.system os.popen os.kill os.fork os.execv os.execve os.execvp os.spawnv os.chmod os.chown os.link os.symlink
os.readlink os.truncate os.utime os.access os.pipe os.startfile os.path.exists os.path.lexists os.path.isfile
os.path.isdir os.path.islink os.path.ismount os.path.getsize os.path.getmtime os.path.getatime os.path.getctime
os.path.realpath os.path.samefile
"""
_PATH_METHODS = """
read_text read_bytes write_text write_bytes open exists is_file is_dir is_symlink is_mount iterdir glob rglob walk stat
lstat mkdir rmdir unlink touch rename replace chmod resolve samefile symlink_to hardlink_to readlink owner group
"""
_FINE = """
asyncio.iscoroutinefunction asyncio.iscoroutine multiprocessing.current_process openai.types. anthropic.types. httpx.URL
httpx.Timeout httpx.Limits httpx.Headers sqlite3.Row psycopg.sql. subprocess.list2cmdline subprocess.CompletedProcess
shutil.get_terminal_size socket.inet_aton socket.inet_ntoa socket.htons socket.ntohs requests.codes. glob.escape
stripe.StripeObject random.Random. numpy.random.Generator. secrets.compare_digest docker.types. kubernetes.client.V1
google.cloud.exceptions. platform.python_version_tuple concurrent.futures.Future
"""
_ENGINE = """
start submit advance run_due wait resume signal pause unpause cancel query get runs waiting history fork retry reset
stream delete prune migrate decide
"""

_SLEEP = "Write `yield Sleep(...)`."
_TABLE: dict[str, tuple[str, str]] = {
    **dict.fromkeys(_CLOCKS.split(), ("clock", "")),
    **dict.fromkeys(_RANDOM.split(), ("random", "")),
    **dict.fromkeys(_HASHES.split(), ("hash", "")),
    **dict.fromkeys(_THREADS.split(), ("thread", "")),
    **dict.fromkeys(_IO.split(), ("io", "")),
    **dict.fromkeys(_ENVIRONMENT.split(), ("environment", "")),
    **{f"pathlib.Path.{name}": ("io", "") for name in _PATH_METHODS.split()},
    **dict.fromkeys(_FINE.split(), (_HARMLESS, "")),
    **{f"stepwell.Engine.{name}": ("io", "Write `yield from Child(workflow, ...)`.") for name in _ENGINE.split()},
    **{name: ("clock", _SLEEP) for name in _CLOCKS.split() if name.endswith(".sleep")},
    **{
        name: ("random", "Write `yield from Uuid()`.")
        for name in _RANDOM.split()
        if name.startswith(("uuid", "ulid", "nanoid", "shortuuid", "cuid"))
    },
    "builtins.print": ("io", "Log it with `stepwell.get_logger()`, which is silent on replay, or print it in a Step."),
    "contextvars.ContextVar.get": ("global", "Hand the value to the workflow as an argument."),
    "contextvars.ContextVar.set": ("global", "Keep it in a local variable or an argument."),
}

READS = {"os.environ", "os.environb", "sys.argv", "sys.platform", "sys.stdin", "sys.stdout", "sys.stderr"}
READS |= {"time.tzname", "time.timezone", "time.daylight"}
"""Names that matter by being read; the others do when they are called."""

NEEDS_ARGUMENTS = {
    "time.localtime": 1,
    "time.gmtime": 1,
    "time.ctime": 1,
    "time.asctime": 1,
    "time.strftime": 2,
    "random.Random": 1,
    "numpy.random.default_rng": 1,
    "numpy.random.RandomState": 1,
    "numpy.random.SeedSequence": 1,
    "datetime.datetime.astimezone": 1,
    "datetime.datetime.fromtimestamp": 2,
}
"""Calls that are harmless with so many arguments."""


def rule_of(name: str) -> tuple[str, str]:
    """The rule that a call of an external name breaks, and a closer remedy; two empty texts when it breaks none."""
    if name in _TABLE:
        return _TABLE[name]
    if name.endswith(("Error", "Exception", "Warning")):  # raised or caught, which harms nobody
        return "", ""
    while "." in name:
        name = name.rpartition(".")[0]
        found = _TABLE.get(f"{name}.")
        if found is not None:
            return found
    return "", ""
