-- remove_session: delete a session and its messages.
-- Uses: session
-- Arguments: id, owner
-- Keys: the session and its messages; owner:<owner>:sessions
-- Returns the number of keys deleted, 0 when the owner has no such session.

return delete_session(owner, id)
