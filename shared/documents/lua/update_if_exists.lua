-- update_if_exists: change fields of a collection or of a document.
-- Uses: core
-- Flags: allow-oom
-- Arguments: record, changes{}
--   record is 'collection:<id>' or 'document:<id>'.
-- Keys: the record
-- Returns 1, or 0 when it is gone.
-- Promise: a record that is gone is not created again.

if redis.call('EXISTS', PREFIX .. record) == 0 then return 0 end
set_fields(PREFIX .. record, changes)
return 1
