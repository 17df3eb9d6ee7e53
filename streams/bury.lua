#!lua flags=allow-oom
-- Makes a dead letter of an event of the log that cannot be read or expanded, when it is its turn, and passes over it.
-- ARGV 2 the event before it  3 ev  4 tenant or ""  5 reason  6 raw fields (bytes)
-- Returns 1, or 0 when it is not its turn or it is done already
local ev, place, count = ARGV[3], expandedUpTo()
if place ~= ARGV[2] or not before(place, ev) then return 0 end
call('XADD', P .. ':deadev', '*', 'tn', ARGV[4], 'why', ARGV[5], 'raw', ARGV[6])
call('HDEL', P .. ':exp', ev)
setExpanded(ev, count + 1)
return 1
