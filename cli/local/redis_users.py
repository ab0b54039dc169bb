"""Users of Redis, one for each kind of process, with the keys and commands that it needs. See ``docs/decisions/redis-users.md``.

The Compose file contains the same rules, which a test compares. ``python -m cli.local.redis_users > deploy/chart/files/redis-users.conf``
writes them for the chart. An external Redis has one login for all processes, the one in ``REDIS_URL``.
"""

import hashlib
import hmac

# No user may list or delete everything, read or change the configuration, load modules, or manage users and other clients.
_DATA = (
    "+@read +@write +@connection +@transaction +@pubsub -@dangerous -function +eval +evalsha +script|load +script|exists +time"
)
# The memory in use decides whether a job is accepted.
_MEMORY = "+info"
_WAKEUPS = "~cpu ~io ~batches ~fetches ~pages ~gpu.* ~text.*"
# A subscription to a pattern needs exactly this pattern.
_EVENTS = "~_kombu.* ~unacked* ~*.pidbox ~celeryev* &/0.celery.pidbox &/0.celeryev/* &/0.celeryev/worker.*"

# What maintenance, which every worker runs, and the handlers touch. API keys and limits of owners are not among it, as a worker reads
# files of strangers.
_JOBS = (
    "~eh:job:* ~eh:jobs:* ~eh:queue:* ~eh:queues ~eh:counts ~eh:stats:* ~eh:usage:* ~eh:rate:tokens:* ~eh:spent:* ~eh:claim:* ~eh:concurrency:* ~eh:idempotency:* ~eh:wakeup_sent:* ~eh:reaping* "
    "~eh:log_rewritten ~eh:worker:* ~eh:workers ~eh:models ~eh:assignments ~eh:unschedulable:* ~eh:session:* ~eh:owners "
    "~eh:owner_bytes ~eh:owner:*:jobs ~eh:owner:*:open_batches ~eh:owner:*:request_batches ~eh:owner:*:sessions ~eh:owner:*:stored ~eh:owner:*:running_users ~eh:owner:*:deliveries "
    "~eh:delivery:* ~eh:deliveries:* ~eh:collection:* ~eh:collections:* ~eh:document:* ~eh:index:* ~eh:data &eh:*"
)
_READ_BY_WORKERS = "%R~eh:keys %R~eh:weights %R~eh:paused %R~eh:owner:*:limits %R~eh:key:*:limits %R~eh:owner:*:webhooks"
_WORKER = f"{_DATA} {_MEMORY} +bgrewriteaof {_WAKEUPS} ~canary.* {_EVENTS} {_JOBS} {_READ_BY_WORKERS}"

RULES = {
    "api": f"{_DATA} {_MEMORY} {_WAKEUPS} ~eh:* &eh:*",
    "gpu": f"{_WORKER} %R~eh:webhook:*",
    "cpu": f"{_WORKER} %R~eh:webhook:*",
    # It signs and sends webhooks, and disables those whose receiver is gone.
    # It writes the output files of request batches, and removes files that have expired.
    "io": f"{_WORKER} ~eh:webhook:* ~eh:owner:*:webhook_secret ~eh:delivery_claim:* ~eh:file:* ~eh:files:* ~eh:owner:*:files",
    # What Celery's events and inspection need; prompts and results are elsewhere.
    "flower": (
        "+@connection +@pubsub +@transaction -@dangerous +llen +lpush +brpop +exists +del +sadd +srem +smembers +sismember "
        "+set +get +hset +hget +hdel +zadd +zrem +zrange +zrangebyscore +zrevrangebyscore +time +evalsha +script|load +script|exists "
        f"%R~enginehouse %R~cpu %R~io %R~batches %R~fetches %R~pages %R~gpu.* %R~text.* {_EVENTS}"
    ),
    # Scales workers by the length of a queue, which it reads with a script.
    "keda": "+@connection -@dangerous +eval +evalsha +type +llen %R~cpu %R~io %R~batches %R~fetches %R~pages %R~gpu.* %R~text.*",
}
"""Rules of Redis' access control lists by user. The user ``default``, with all rights, is for operators."""


def password_of(user: str, secret: str) -> str:
    """The password of a user, derived from the one of ``default``, which cannot be computed from it."""
    return hmac.new(secret.encode(), f"redis user {user}".encode(), hashlib.sha256).hexdigest()


def configuration(secret: str) -> str:
    """Lines of ``redis.conf`` that create all users."""
    return "".join(f"user {user} on >{password_of(user, secret)} {rules}\n" for user, rules in RULES.items())


def container_configuration() -> str:
    """The same lines for a container, whose shell puts the passwords in from its environment."""
    return "".join(f"user {user} on >$REDIS_{user.upper()}_PASSWORD {rules}\n" for user, rules in RULES.items())


if __name__ == "__main__":
    print(container_configuration(), end="")
