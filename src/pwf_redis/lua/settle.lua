-- settle.lua: forget messages that were delivered, in one step: an entry that is acknowledged but
-- not deleted would stay for ever.
--
-- KEYS[1]   pwf:{namespace:partition}:due; only its prefix matters, and the slot
-- ARGV[1]   group
-- ARGV[2]   how many to keep in the list `rejected`; 0: these are done, do not list them
-- ARGV      then service and entry id of each, one after the other
--
-- Reply:    how many were still known

local prefix = string.sub(KEYS[1], 1, -4)
local group, keep = ARGV[1], tonumber(ARGV[2])
local count = 0
for number = 3, #ARGV, 2 do
  local service, entry = ARGV[number], ARGV[number + 1]
  local stream = prefix .. 'stream:' .. service
  if keep > 0 then
    local found = redis.call('XRANGE', stream, entry, entry)[1]
    if found then
      local text = service .. ' ' .. entry .. ' ' .. table.concat(found[2], ' ')
      redis.call('LPUSH', prefix .. 'rejected', text)
      redis.call('LTRIM', prefix .. 'rejected', 0, keep - 1)
    end
  end
  redis.pcall('XACK', stream, group, entry)  -- the group may have gone with its server's memory
  count = count + redis.call('XDEL', stream, entry)
end
return count
