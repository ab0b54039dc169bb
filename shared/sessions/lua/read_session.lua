-- read_session: the messages of a session, which renews its time to live.
-- Uses: session
-- Arguments: id, owner, ttl_seconds:number
-- Keys: the session and its messages; owner:<owner>:sessions
-- Returns the messages in JSON, oldest first, or false when the owner has no such session.

if not session_exists(owner, id) then return false end
renew_session(owner, id, ttl_seconds)
return redis.call('LRANGE', messages_key(owner, id), 0, -1)
