-- bury: take a job off the list of the dead, as it was replayed or is to be forgotten.
-- ARGV: now, id
-- Keys: jobs:dead_letters
-- Returns 1 when it was on the list, else 0.
-- Promise: the record itself is left alone.

return redis.call('ZREM', PREFIX .. 'jobs:dead_letters', ARGV[2])
