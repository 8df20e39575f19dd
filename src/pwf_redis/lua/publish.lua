-- publish.lua: put messages into the streams of a broker, and wake one idle consumer of each.
--
-- KEYS[1]   pwf:{namespace:partition}:due; only its prefix matters, and the slot
-- ARGV      service and body of each message, one after the other
--
-- Reply:    how many were added
--
-- Keys:
--   stream:<service>   stream of messages, one field m: the encoded message
--   ready:<service>    list of at most one token: somebody who waits for messages is to look

local prefix = string.sub(KEYS[1], 1, -4)
local services = {}
for number = 1, #ARGV, 2 do
  redis.call('XADD', prefix .. 'stream:' .. ARGV[number], '*', 'm', ARGV[number + 1])
  services[ARGV[number]] = true
end
for service in pairs(services) do
  local ready = prefix .. 'ready:' .. service
  if redis.call('LLEN', ready) == 0 then redis.call('LPUSH', ready, '1') end
end
return #ARGV / 2
