#!lua flags=allow-oom
-- Counts a request of somebody in a window of time. Small and short-lived, so that it runs when memory is short too.
-- ARGV 2 who and when  3 ms that the count is kept
-- Returns how many there were
local tally = key('rl', ARGV[2])
local count = call('INCR', tally)
if count == 1 then call('PEXPIRE', tally, ARGV[3]) end
return count
