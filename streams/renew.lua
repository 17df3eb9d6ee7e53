#!lua flags=allow-oom
-- Renews the leases that a sender still holds.
-- ARGV 2 ms of a lease  3 leases (MessagePack, each an array: subscription, id, token)
-- Returns the indexes from 0 of those that it holds no more.
local expiry, lost = now + tonumber(ARGV[2]), {}
for i, lease in ipairs(cmsgpack.unpack(ARGV[3])) do
  local sub, id, token = unpack(lease)
  if call('HGET', key('tok', sub), id) == token then
    call('ZADD', key('inf', sub), 'XX', expiry, id)
  else
    lost[#lost + 1] = i - 1
  end
end
return lost
