-- open_session: create a session, or continue the owner's session with this id.
-- Uses: session, limits
-- Arguments: id, owner, ttl_seconds:number, limit:number
--   limit is that of owners without one of their own.
-- Keys: the session; owner:<owner>:sessions and limits
-- Returns 0, or the limit that a new session would exceed.

if session_exists(owner, id) then return 0 end
local most = limit_of(owner, 'sessions', limit)
if count_sessions(owner) >= most then return most end
create_session(owner, id, ttl_seconds)
return 0
