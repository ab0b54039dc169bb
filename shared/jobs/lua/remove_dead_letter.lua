-- remove_dead_letter: remove a job from the dead letters, after its replay or because an operator ignores it.
-- Uses: core
-- Flags: allow-oom
-- Arguments: id
-- Keys: jobs:dead_letters
-- Returns 1 when it was on the list, else 0.
-- Promise: the record does not change.

return redis.call('ZREM', PREFIX .. 'jobs:dead_letters', id)
