-- remove_dead_letter: take a job off the dead-letter list, because it was replayed or is to be ignored.
-- Uses: core
-- Arguments: id
-- Keys: jobs:dead_letters
-- Returns 1 when it was on the list, else 0.
-- Promise: the record does not change.

return redis.call('ZREM', PREFIX .. 'jobs:dead_letters', id)
