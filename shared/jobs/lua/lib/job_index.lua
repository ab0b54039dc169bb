-- Index of jobs: lists and counts by status, kind, model, collection and batch, for any number of jobs.
-- Uses: job
--
-- Keys:
--   jobs:groups:<scope>           hash   group -> number of its jobs
--   jobs:group:<scope>:<group>    zset   ids of the jobs of a group, all with score 0, so that they sort by id
--
-- A scope is an owner, or an owner and a collection or batch: <owner>, <owner>:<collection id>, <owner>:<batch id>. In each of its scopes
-- a job is in one group: "<status> <kind> <model>". The collection in a record is an id.

local STATUSES = { 'queued', 'in_progress', 'completed', 'failed', 'cancelled', 'expired' }

local INDEX_FIELDS = { 'owner', 'status', 'kind', 'model', 'collection', 'parent' }

local function index_fields(id) return fields(id, unpack(INDEX_FIELDS)) end

local function scopes_of(job)
  local scopes = { job.owner }
  if is_set(job.collection) then scopes[2] = job.owner .. ':' .. job.collection end
  if is_set(job.parent) then scopes[#scopes + 1] = job.owner .. ':' .. job.parent end
  return scopes
end

local function group_of(job, status) return status .. ' ' .. job.kind .. ' ' .. (job.model or '') end

local function group_key(scope, group) return PREFIX .. 'jobs:group:' .. scope .. ':' .. group end

local function join_group(id, job, status)
  local group = group_of(job, status)
  for _, scope in ipairs(scopes_of(job)) do
    if redis.call('ZADD', group_key(scope, group), 0, id) == 1 then
      redis.call('HINCRBY', PREFIX .. 'jobs:groups:' .. scope, group, 1)
    end
  end
end

-- Take a job out of the group of a status. Returns whether it was there.
local function leave_group(id, job, status)
  local group, removed = group_of(job, status), 0
  for _, scope in ipairs(scopes_of(job)) do
    if redis.call('ZREM', group_key(scope, group), id) == 1 then
      removed = removed + 1
      local groups = PREFIX .. 'jobs:groups:' .. scope
      if redis.call('HINCRBY', groups, group, -1) <= 0 then redis.call('HDEL', groups, group) end
    end
  end
  return removed > 0
end

-- A worker of a version without this index may have changed the status, so that the job is in the group of an earlier one.
local function leave_groups(id, job)
  if leave_group(id, job, job.status) then return end
  for _, status in ipairs(STATUSES) do leave_group(id, job, status) end
end

-- Enter a new job, or one of an earlier version, into the lists of its owner. `job` has its INDEX_FIELDS.
local function add_to_index(id, job)
  redis.call('ZADD', PREFIX .. 'owner:' .. job.owner .. ':jobs', 0, id)
  join_group(id, job, job.status)
end

local function remove_from_index(id, owner)
  local job = index_fields(id)
  if job.status then leave_groups(id, job) end
  redis.call('ZREM', PREFIX .. 'owner:' .. owner .. ':jobs', id)
end

-- The only way to change the status of a job, with other fields of its record. `job` has its INDEX_FIELDS.
local function set_status(id, job, status, changes)
  if job.status ~= status then
    leave_groups(id, job)
    join_group(id, job, status)
  end
  changes.status = status
  set_fields(job_key(id), changes)
end
