-- release.lua: hand back at once what a consumer has not acknowledged, and take it off the group.
-- Other consumers are not given pending entries unless they look for the dead, so each goes to the
-- end of the stream as a new entry.
--
-- KEYS[1]   pwf:{namespace:partition}:due; only its prefix matters, and the slot
-- ARGV[1]   group
-- ARGV[2]   consumer
-- ARGV[3]   service
-- ARGV[4]   how many at the most
--
-- Reply:    how many were handed back; ask again until it is less than the most

local prefix = string.sub(KEYS[1], 1, -4)
local stream, group, consumer = prefix .. 'stream:' .. ARGV[3], ARGV[1], ARGV[2]
local pending = redis.pcall('XPENDING', stream, group, '-', '+', ARGV[4], consumer)
if pending.err then return 0 end  -- no such stream or group: nothing was delivered from it
for _, one in ipairs(pending) do
  local entry = redis.call('XRANGE', stream, one[1], one[1])[1]
  if entry then redis.call('XADD', stream, '*', unpack(entry[2])) end
  redis.call('XACK', stream, group, one[1])
  redis.call('XDEL', stream, one[1])
end
if #pending < tonumber(ARGV[4]) then redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer) end
if #pending > 0 then
  local ready = prefix .. 'ready:' .. ARGV[3]
  if redis.call('LLEN', ready) == 0 then redis.call('LPUSH', ready, '1') end
end
return #pending
