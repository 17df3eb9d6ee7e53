#!lua flags=allow-oom
-- Renews the leases that a sender still holds.
-- ARGV 2 ms of a lease  3 leases (MessagePack, each an array: subscription, id, token)
-- Returns how many it still held.
local expiry, held = now + tonumber(ARGV[2]), 0
for _, lease in ipairs(cmsgpack.unpack(ARGV[3])) do
  local sub, id, token = unpack(lease)
  if call('HGET', key('tok', sub), id) == token then
    call('ZADD', key('inf', sub), 'XX', expiry, id)
    held = held + 1
  end
end
return held
