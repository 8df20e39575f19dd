-- exchange.lua: move on what is due, apply commands, and (fused) take calls to run. One atomic step.
--
-- KEYS[1]   see request.lua
-- ARGV[1]   see request.lua, and after its commands
--             sweep          how many due timers to fire at the most
--             session        "" to take nothing; else who takes,
--             claim id
--             lease_ms
--             suspects       whether one call that was lost with its workers before may be taken
--             limit
--             services       a list
-- ARGV[n]   payloads
--
-- Reply:    { 0, replies, grants, enqueued, next_due_ms, strange }
--             replies        one per command: a number, { run id, created, conflict } or a grant
--             grants         ten values per call taken, see `grant` in transition.lua
--             enqueued       paired: { run id, call id, generation, address } per new copy
--             next_due_ms    until the earliest timer; -1 without one
--             strange        how many messages of strangers were set aside
--      or:  { 1, kind, name, problem }: nothing was done, because something could not be judged;
--             kind is "command" (name: its number from 1), "timer" (its member of `due`) or
--             "message" (name: { service, entry id, what it says }). Send it again without that.
--      or:  { 2, format }: nothing was done, because the namespace is used in another format
--
-- Keys beside those of request.lua and messages.lua:
--   take:<session>    what the last exchange of a worker came to, should its reply get lost; no earlier
--                     claim of that session is granted anything any more
--   undecodable       list of what strangers put into a queue, the latest first
--
-- There is no consumer group. A message leaves its stream in the step that leases its call, so the
-- lease's timer is the only thing that brings a call back, and no worker owns anything else.

local commands, sweep, take
local lines    -- what to take from, see `more`
local strange  -- how many entries were set aside

local KEEP_UNDECODABLE = 1000

local function begin_exchange()
  commands = read_commands()
  local wishes = read(7)
  sweep, take = wishes[2], wishes[3] ~= '' and {
    session = wishes[3], claim_id = wishes[4], lease_ms = wishes[5], suspects = wishes[6],
    limit = wishes[7], services = wishes[8],
  }
  lines, strange, has_rested = {}, 0, false
end

--== due timers =================================================================================

local function fire_due()
  local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, sweep)
  local fires = {}
  for number, member in ipairs(due) do
    local run_id, call_id = string.match(member, '^([^:]*):([^:]*):')
    fires[number] = { false, FIRE, run_id or '', call_id or '' }
  end
  read_ahead(fires)
  for number, fire in ipairs(fires) do
    if timers[due[number]] == nil then  -- else set anew or cleared by one that fired before
      timers[due[number]] = false
      local ok, reply = pcall(apply, fire)
      if not ok then return { 1, 'timer', due[number], problem_of(reply) } end
      if has_rested then return end
    end
  end
end

---- taking -------------------------------------------------------------------------------------

-- A line is one service's messages: first those in its stream, then those made by this script.
-- `names` has run, call, generation and the number of the stream entry for each message that was read,
-- and false for run, call and generation of an entry that is not one of ours.
local function more(line, wish)
  local count = math.ceil(wish / line.width)
  local entries = redis.call('XRANGE', line.key, line.from, '+', 'COUNT', count)
  local names, size = {}, 0
  line.dry = #entries < count
  if #entries > 0 then line.from = '(' .. entries[#entries][1] end
  for number, entry in ipairs(entries) do
    local fields, before = entry[2] or NONE, size
    for field = 1, #fields, 2 do
      local run_id, call_id, generation
      if fields[field] == 'm' then
        run_id, call_id, generation = string.match(fields[field + 1], '^([^:]+):([^:]+):(%d+)$')
      end
      if run_id then
        if size < 4 * wish then read_call(run_id, call_id, true) end
        names[size + 1], names[size + 2], names[size + 3] = run_id, call_id, generation
        names[size + 4] = number
        size = size + 4
      end
    end
    if size == before then
      names[size + 1], names[size + 2], names[size + 3], names[size + 4] = false, false, false, number
      size = size + 4
    end
  end
  line.entries, line.names, line.size, line.at = entries, names, size, 0
  line.width = math.max(math.floor(size / 4 / math.max(#entries, 1)), 1)
  grant_wishes()
end

-- Return run, call, generation and stream entry of the next message; nil if there is none.
-- `room` says for how many more there is room. An entry goes with its last message: those before it
-- are known by their calls, should they be read again.
local function next_message(line, room)
  while true do
    if line.at < line.size then
      local names, at = line.names, line.at
      local entry = line.entries[names[at + 4]]
      line.at = at + 4
      if names[at + 8] ~= names[at + 4] then line.gone[#line.gone + 1] = entry[1] end
      if names[at + 1] then
        return names[at + 1], names[at + 2], tonumber(names[at + 3]), entry[1]
      end
      line.bad[#line.bad + 1] = entry
    elseif not line.dry then
      more(line, math.min(math.ceil(room), CHUNK))
    else
      local fresh = queued[line.service]
      if not fresh or fresh.taken == fresh.size then return nil end
      local at = fresh.taken
      fresh.taken = at + 4
      return fresh[at + 1], fresh[at + 2], fresh[at + 3], ''
    end
  end
end

local function claim_message(run_id, call_id, generation, suspects, grants)
  local run = known(run_id)
  return run and claim(run, call_id, generation, take.claim_id, take.lease_ms, suspects, grants)
end

local function has_more(line)
  local fresh = queued[line.service]
  return line.at < line.size or not line.dry or (fresh and fresh.taken < fresh.size)
end

-- Grant up to the limit, one of each service in turn.
local function take_calls(grants, granted)
  local limit, suspects = take.limit, take.suspects
  local waiting = {}
  for number, service in ipairs(take.services) do
    local line = {
      service = service, key = queue_key(service),
      from = '-', dry = false, width = MESSAGES, size = 0, at = 0, gone = {}, bad = {},
    }
    lines[number], waiting[number] = line, line
  end
  local turn, count = 1, 0
  while #waiting > 0 and count < limit do
    if turn > #waiting then turn = 1 end
    local line = waiting[turn]
    local run_id, call_id, generation, entry = next_message(line, (limit - count) / #waiting)
    if run_id then
      local ok, reply = pcall(claim_message, run_id, call_id, generation, suspects, grants)
      if not ok then
        local name = run_id .. ':' .. call_id .. ':' .. generation
        return { 1, 'message', { line.service, entry, name }, problem_of(reply) }
      end
      if type(reply) == 'table' then
        count = count + 1
        granted[2 * count - 1], granted[2 * count] = run_id, call_id
        if grants[10 * count - 3] >= SUSPECT_LOST then suspects = false end  -- how often it was lost
        turn = turn + 1
      end
    else
      table.remove(waiting, turn)
    end
  end
  for _, line in ipairs(lines) do
    if has_more(line) then waking[line.service] = true end
  end
end

-- What is in `lines` was taken by this script, or is none of ours.
local function clear_lines()
  for _, line in ipairs(lines) do
    bulk('XDEL', line.key, line.gone)
    strange = strange + #line.bad
    for _, entry in ipairs(line.bad) do
      local text = line.service .. ' ' .. entry[1] .. ' ' .. table.concat(entry[2] or {}, ' ')
      redis.call('LPUSH', prefix .. 'undecodable', text)
      redis.call('LTRIM', prefix .. 'undecodable', 0, KEEP_UNDECODABLE - 1)
    end
  end
end

---- the exchange -------------------------------------------------------------------------------

-- The same exchange again: its reply was lost. Grants that still hold are given again.
local function repeat_exchange(record)
  local grants, replies, granted = {}, record[2], record[3]
  for number = 1, #granted, 2 do
    -- No generation is as low: only the very lease that was given then is granted.
    pcall(claim_message, granted[number], granted[number + 1], -1, false, grants)
  end
  for number, command in ipairs(commands) do
    if replies[number] == false then
      local ok, reply = pcall(apply, command)
      if not ok then return { 1, 'command', number, problem_of(reply) } end
      replies[number] = reply
    end
  end
  flush()
  return { 0, replies, grants, {}, next_due(), 0 }
end

local function number_of(claim_id)
  return tonumber(string.match(claim_id, '%d+$')) or 0
end

local function main()
  begin_request()
  begin_messages()
  begin_runs()
  begin_exchange()
  set_clock()
  local other = other_format()
  if other then return { 2, other } end
  local record_key
  if take then
    record_key = prefix .. 'take:' .. take.session
    local record = redis.call('GET', record_key)
    if record then
      record = cmsgpack.unpack(record)
      if record[1] == take.claim_id then return repeat_exchange(record) end
      -- A wait that was given up comes after all, and a later claim of that lane was recorded: nobody
      -- would hear of what is taken now.
      if number_of(record[1]) > number_of(take.claim_id) then take.limit, record_key = 0, nil end
    end
  end
  if sweep > 0 then
    local problem = fire_due()
    if problem then return problem end
  end
  read_ahead(commands)
  local replies, answers = {}, {}
  for number, command in ipairs(commands) do
    local ok, reply = pcall(apply, command)
    if not ok then return { 1, 'command', number, problem_of(reply) } end
    replies[number] = reply
    -- A grant is not kept but asked for again, which a claim may be.
    answers[number] = (command[2] ~= CLAIM or type(reply) ~= 'table') and reply
  end
  local grants, granted, enqueued = {}, {}, NONE
  if take and take.limit > 0 then
    local problem = take_calls(grants, granted)
    if problem then return problem end
  end
  if paired then
    enqueued = copies()
  else
    write_messages()
    clear_lines()
  end
  flush()
  -- Who takes nothing may be ending a claim that is still on its way, and finds this then.
  if record_key and (#commands > 0 or #granted > 0 or take.limit == 0) then
    local keep_ms = math.max(2 * take.lease_ms, 60000)
    local record = cmsgpack.pack({ take.claim_id, answers, granted })
    redis.call('SET', record_key, record, 'PX', keep_ms)
  end
  local due = next_due()
  if not paired then wake() end
  return { 0, replies, grants, enqueued, due, strange }
end

return main()
