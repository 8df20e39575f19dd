-- messages.lua: what the others are to hear of a step: copies of calls, tokens, and when to look again.
--
-- Keys beside those of request.lua:
--   queue:<service>   stream of entries of one to MESSAGES messages, a field m for each:
--                     <run id>:<call id>:<generation>; other fields, of a later version, are ignored
--   wake:<service>    list of at most one token: somebody who waits for work is to look

-- An entry costs as much as several messages in it.
local MESSAGES = 8

--== messages ======================================================================================

local function queue_key(service)
  return prefix .. 'queue:' .. service
end

local queued         -- service -> its new messages: run id, call id, generation, address, and so on
local services       -- the services in `queued`, in order
local waking         -- services in which somebody is to look
local awaited        -- due time and service of the earliest delayed call set here
local service_names  -- address -> service

local function begin_messages()
  queued, services, waking, awaited, service_names = {}, {}, {}, nil, {}
end

local function service_of(address)
  local service = service_names[address]
  if not service then
    service = string.match(address, '^[^.]*')
    service_names[address] = service
  end
  return service
end

local function send(run_id, call_id, generation, address)
  local service = service_of(address)
  local queue = queued[service]
  if not queue then
    queue = { taken = 0, size = 0 }
    queued[service] = queue
    services[#services + 1] = service
  end
  local size = queue.size
  queue[size + 1], queue[size + 2] = run_id, call_id
  queue[size + 3], queue[size + 4] = generation, address
  queue.size = size + 4
end

-- Note the earliest due time that was set here: somebody may have to wake for it.
local function await(due, address)
  if not awaited or due < awaited.due then
    awaited = { due = due, service = service_of(address) }
  end
end

-- { run id, call id, generation, address } of each copy that somebody is to publish.
local function copies()
  local found = {}
  for _, service in ipairs(services) do
    local fresh = queued[service]
    for at = 1, fresh.size, 4 do
      found[#found + 1] = { fresh[at], fresh[at + 1], fresh[at + 2], fresh[at + 3] }
    end
  end
  return found
end

-- First of all writes, and with a command that is refused when memory is full.
local function write_messages()
  for _, service in ipairs(services) do
    local fresh = queued[service]
    local entry, size = { queue_key(service), '*' }, 2
    for at = fresh.taken + 1, fresh.size, 4 do
      entry[size + 1] = 'm'
      entry[size + 2] = fresh[at] .. ':' .. fresh[at + 1] .. ':' .. digits[fresh[at + 2]]
      size = size + 2
      if size == 2 + 2 * MESSAGES or at + 4 > fresh.size then
        redis.call('XADD', unpack(entry, 1, size))
        size = 2
        waking[service] = true
      end
    end
  end
end

local function wake()
  for service in pairs(waking) do
    local key = prefix .. 'wake:' .. service
    if redis.call('LLEN', key) == 0 then redis.call('LPUSH', key, '1') end
  end
end

local function next_due()
  local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  local due = tonumber(first[2])
  -- Whoever waits for a later one must know of it.
  if not paired and awaited and due and awaited.due <= due then waking[awaited.service] = true end
  return due and math.max(due - now, 0) or -1
end
