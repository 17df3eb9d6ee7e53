#!lua flags=allow-oom
-- Becomes, or stays, the leader of a seat: also when memory is short, or nobody would be left to free it.
-- KEYS[1] the seat's key   ARGV 2 process  3 ms that it leads without renewing
-- Returns 1 if the process leads it now, else 0
local leader = call('GET', KEYS[1])
if leader and leader ~= ARGV[2] then return 0 end
call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
