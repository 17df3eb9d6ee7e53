#!lua flags=allow-oom
-- Makes a dead letter of an event of the log that cannot be read or expanded, when it is its turn, and passes over it.
-- ARGV 2 ev  3 tenant or ""  4 reason  5 raw fields (bytes)
-- Returns 1, or 0 when older events come first or it is done already
local log, ev = P .. ':events', ARGV[2]
local head = call('XPENDING', log, 'dispatchers', '-', '+', 1)[1]
if not head or head[1] ~= ev then return 0 end
call('XADD', P .. ':deadev', '*', 'tn', ARGV[3], 'why', ARGV[4], 'raw', ARGV[5])
call('HSET', P .. ':meta', 'hwm', ev)
call('HDEL', P .. ':exp', ev)
call('XACK', log, 'dispatchers', ev)
return 1
