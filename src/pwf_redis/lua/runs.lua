-- runs.lua: the runs that a request names, read into Lua tables and written back.

-- What this script has found out and decided so far.
local runs           -- run id -> run; false where there is none
local opened         -- every run in `runs`, and those that were deleted, in order
local timers         -- member of `due` -> time, or false
local letters        -- member of `dead` -> time, or false
local old_keys       -- users' keys whose runs are gone
local ends           -- { run id, outcome } to be told
local ended_address  -- of the call that this command ended, for people
local ended_id
local reading        -- runs with fields to be read
local packed         -- see PACKED

-- What many records have in common is packed once: number, boolean, list or short text -> msgpack.
local PACKED = { __index = function(known, value)
  local text = cmsgpack.pack(value)
  known[value] = text
  return text
end }

local function begin_runs()
  runs, opened, timers, letters, old_keys, ends = {}, {}, {}, {}, {}, {}
  ended_address, ended_id = nil, nil
  reading, packed = {}, setmetatable({}, PACKED)
end

--== reading runs ===============================================================================

-- A run: `calls` and `scopes` by id; `has`, its other fields (records as tables, to be changed in
-- place and marked in `out`); in these, false is what there is none of, nil what was not read yet;
-- `h`, its header, once that was needed, and `was`, the same as it is stored.
-- Further: `write` (the header), `gone` (fields to delete), `wiped` (nothing is to be left of what is in
-- the keyspace), `deleted`, `broken` (why it cannot be read).
local function new_run(run_id)
  local run = {
    id = run_id, key = prefix .. 'run:' .. run_id,
    calls = { first = nil, second = nil }, scopes = NONE, has = NONE, out = NONE,
    h = nil, was = nil, write = nil, gone = nil,  -- nothing, but room: tables that grow take time
  }
  opened[#opened + 1] = run
  return run
end

local function note(run, field, value)
  if run.has == NONE then run.has = { [field] = value } else run.has[field] = value end
end

local function mark(run, field)
  if run.out == NONE then run.out = { [field] = true } else run.out[field] = true end
end

local function keep_call(run, call_id, value)
  if run.calls[call_id] == nil then
    run.calls[call_id] = value and { false, false, cmsgpack.unpack(value) }
  end
end

local function keep(run, field, value)
  local kind = string.byte(field)
  if kind == 99 then  -- c
    keep_call(run, string.sub(field, 3), value)
  elseif run.has[field] == nil then
    if value and (kind == 106 or kind == 110) then  -- j, n
      value = { cmsgpack.unpack(value) }
    end
    note(run, field, value)
  end
end

local function fetch(run, fields)
  for first = 1, #fields, CHUNK do
    local final = math.min(first + CHUNK - 1, #fields)
    local values = redis.call('HMGET', run.key, unpack(fields, first, final))
    for number = first, final do keep(run, fields[number], values[number - first + 1]) end
  end
end

local function judge_header(run, value)
  run.h, run.was = { cmsgpack.unpack(value) }, value
  judge_format(run.h[H_FORMAT])
end

-- Return a run's header; the run is known to be there.
local function header(run)
  if not run.h then judge_header(run, redis.call('HGET', run.key, 'h')) end
  return run.h
end

-- Read a run: its header, one call, or both. `runs` has it afterwards.
local function open(run_id, call_id, without_header)
  local run, values = new_run(run_id), nil
  runs[run_id] = run
  if not call_id then
    values = redis.pcall('HMGET', run.key, 'h')
  elseif without_header then
    values = redis.pcall('HMGET', run.key, 'c:' .. call_id)
  else
    values = redis.pcall('HMGET', run.key, 'c:' .. call_id, 'h')
  end
  local ok, problem = not values.err, values.err
  if ok and not without_header then
    local value = values[call_id and 2 or 1]
    if not value then
      runs[run_id] = false
      return
    end
    ok, problem = pcall(judge_header, run, value)
  end
  -- Who claims needs no header: where the call is, there is the run.
  if ok and call_id then ok, problem = pcall(keep_call, run, call_id, values[1]) end
  if not ok then run.broken = tostring(problem) end
end

-- Return the run, or false. Without its header it may turn out that there is none.
local function known(run_id)
  local run = runs[run_id]
  if run == nil then
    open(run_id)
    run = runs[run_id]
  end
  if run and run.broken then error(run.broken, 0) end
  return run
end

-- Return the run with its header, or false.
local function find(run_id)
  local run = known(run_id)
  if run and not run.h then
    local value = redis.call('HGET', run.key, 'h')
    if value then
      judge_header(run, value)
    else
      runs[run_id], run = false, false
    end
  end
  return run
end

-- Read these fields in one go, as far as they are not known.
local function prepare(run, fields)
  if run.wiped then return end
  local unknown = {}
  for _, field in ipairs(fields) do
    if run.has[field] == nil then unknown[#unknown + 1] = field end
  end
  fetch(run, unknown)
end

local function get(run, field)
  local value = run.has[field]
  if value == nil then
    if run.wiped then return false end
    fetch(run, { field })
    value = run.has[field]
  end
  return value
end

local function put(run, field, value)
  note(run, field, value)
  mark(run, field)
end

local function get_call(run, call_id)
  local call = run.calls[call_id]
  if call == nil then
    if run.wiped then return false end
    fetch(run, { 'c:' .. call_id })
    call = run.calls[call_id]
  end
  return call
end

local function get_scope(run, scope)
  local record = run.scopes[scope]
  if not record then
    record = { cmsgpack.unpack(redis.call('HGET', run.key, 's:' .. scope)) }
    if run.scopes == NONE then run.scopes = {} end
    run.scopes[scope] = record
  end
  return record
end

local function count(run, what, change)
  local h = run.h or header(run)
  h[what] = h[what] + change
  run.write = true
end

---- writing ------------------------------------------------------------------------------------

-- Length -> what msgpack puts before a text of that length. So a body is copied, and not packed first.
local before_text = setmetatable({}, { __index = function(known, length)
  local text = string.sub(cmsgpack.pack(string.rep(' ', length)), 1, -length - 1)
  known[length] = text
  return text
end })

-- The two records that are written most are put together by hand: `cmsgpack.pack` makes a string of
-- each value before it makes one of all. Both have to list every field, in order.

local function pack_header(h)
  if #h > H_RESTS then return cmsgpack.pack(unpack(h)) end  -- a later version's
  return packed[h[H_FORMAT]] .. packed[h[H_STATUS]] .. packed[h[H_PENDING]] .. packed[h[H_LIVE]]
    .. packed[h[H_DEAD]] .. packed[h[H_DROPPED]] .. packed[h[H_EXTERNAL]] .. packed[h[H_DUE]]
    .. packed[h[H_EVENTS]] .. packed[h[H_TIMED]] .. packed[#h[H_RESTS] == 0 and NONE or h[H_RESTS]]
end

local function pack_call(call)
  if #call > C_CHUNKS then return cmsgpack.pack(unpack(call, C_PHASE)) end  -- a later version's
  local joined, body = call[C_JOINED], call[C_BODY]
  return packed[call[C_PHASE]] .. packed[call[C_GENERATION]] .. packed[call[C_ATTEMPTS]]
    .. packed[call[C_LOST]] .. packed[call[C_DUE]] .. packed[call[C_CLAIM]] .. packed[call[C_ADDRESS]]
    .. packed[call[C_SCOPE]] .. packed[call[C_MEMBER]] .. packed[call[C_GATHERED]]
    .. packed[#joined == 0 and NONE or joined] .. packed[call[C_REASON]] .. packed[call[C_UNCLAIMED]]
    .. (body and before_text[#body] .. body or packed[false]) .. packed[call[C_CHUNKS]]
end

local function bulk(command, key, arguments)
  for first = 1, #arguments, CHUNK do
    local final = math.min(first + CHUNK - 1, #arguments)
    redis.call(command, key, unpack(arguments, first, final))
  end
end

local function write_run(run)
  local set, size = {}, 0
  if run.write then
    local header = pack_header(run.h)
    if header ~= run.was then set, size = { 'h', header }, 2 end  -- mostly, one call follows another
  end
  for call_id, call in pairs(run.calls) do
    if call and call[C_WRITE] then
      set[size + 1], set[size + 2] = 'c:' .. call_id, pack_call(call)
      size = size + 2
    end
  end
  for scope, record in pairs(run.scopes) do
    if record[S_WRITE] then
      set[size + 1], set[size + 2] = 's:' .. scope, cmsgpack.pack(unpack(record))
      size = size + 2
    end
  end
  local gone = run.gone or {}
  for field in pairs(run.out) do
    local value = run.has[field]
    if value then
      if type(value) == 'table' then value = cmsgpack.pack(unpack(value)) end
      set[size + 1], set[size + 2] = field, value
      size = size + 2
    else
      gone[#gone + 1] = field
    end
  end
  if run.wiped then redis.call('UNLINK', run.key) end
  bulk('HSET', run.key, set)
  if not run.wiped then bulk('HDEL', run.key, gone) end
end

local function write_sorted_set(key, times)
  local set, gone = {}, {}
  for name, time in pairs(times) do
    if time then
      set[#set + 1] = time
      set[#set + 1] = name
    else
      gone[#gone + 1] = name
    end
  end
  bulk('ZADD', key, set)
  bulk('ZREM', key, gone)
end

-- Write everything but the messages, which the entry point has put where they belong before: a
-- message too many runs nothing.
local function flush()
  for _, run in ipairs(opened) do
    if run.deleted then
      redis.call('UNLINK', run.key)
    elseif runs[run.id] == run and not run.broken then
      write_run(run)
    end
  end
  for _, key in ipairs(old_keys) do redis.call('PEXPIRE', prefix .. 'key:' .. key, key_grace_ms) end
  write_sorted_set(KEYS[1], timers)
  write_sorted_set(prefix .. 'dead', letters)
  for _, one in ipairs(ends) do redis.call('PUBLISH', prefix .. 'done:' .. one[1], one[2]) end
end

---- reading the request, and what it is going to need -------------------------------------------

local function read_list(size, width)
  if size == 0 then return NONE end
  if size == 1 then return { read(width) } end
  local list = {}
  for number = 1, size do list[number] = read(width) end
  return list
end

local function read_made(command)
  local emits, joins = read_list(command[7], 2), read_list(command[8], 9)
  local gathers, members = NONE, NONE
  if command[9] > 0 then
    gathers, members = {}, {}
    for number = 1, command[9] do
      gathers[number] = read(8)
      members[number] = read_list(gathers[number][7], 5)
    end
  end
  return { emits, joins, gathers, members, read_list(command[10], 5) }
end

local function read_commands()
  local commands = {}
  for number = 1, settings[8] do
    local command = read(WIDTH)
    commands[number] = command
    command[1] = false
    if command[2] == COMMIT and command[7] + command[8] + command[9] + command[10] > 0 then
      command[1] = read_made(command)
    elseif command[2] == STAGE then
      command[1] = read_list(command[7], U_WIDTH)
    end
  end
  return commands
end

local function wish(run, field)
  local want = run.want
  if want then
    want[#want + 1] = field
  else
    run.want = { field }
    reading[#reading + 1] = run
  end
end

local function wish_more(run, command)
  local emits, joins = command[1][1], command[1][2]
  for _, one in ipairs(emits) do
    wish(run, 'e:' .. one[2])
    wish(run, 'w:' .. one[2])
  end
  for _, new in ipairs(joins) do
    for _, event in ipairs(new[7]) do
      wish(run, 'e:' .. event)
      wish(run, 'w:' .. event)
    end
  end
end

local function grant_wishes()
  for _, run in ipairs(reading) do
    local ok, problem = pcall(fetch, run, run.want)
    if not ok then run.broken = tostring(problem) end
    run.want = nil
  end
  reading = {}
end

-- Read a call ahead: at once if its run is new here, else with others of that run.
local function read_call(run_id, call_id, to_claim)
  local run = runs[run_id]
  if run == nil then
    open(run_id, call_id, to_claim)
  elseif run and run.calls[call_id] == nil and not run.broken and not run.wiped then
    wish(run, 'c:' .. call_id)
  end
end

-- A result is written once; where it would stand, the call knows.
local function read_results(commands)
  for _, command in ipairs(commands) do
    if command[2] == COMMIT and command[6] ~= 0 then
      local run = runs[command[3]]
      local call = run and not run.broken and run.calls[command[4]]
      if call and not run.wiped then wish(run, 'r:' .. call[C_SCOPE] .. ':' .. digits[call[C_MEMBER]]) end
    end
  end
  grant_wishes()
end

-- Read what these commands name: at most three rounds to each run, however many name it.
local function read_ahead(commands)
  for _, command in ipairs(commands) do
    local kind, run_id, call_id = command[2], command[3], command[4]
    if kind == EMIT then
      local run = runs[run_id]
      if run == nil then
        open(run_id)
        run = runs[run_id]
      end
      if run and not run.broken and not run.wiped then
        wish(run, 'e:' .. call_id)
        wish(run, 'w:' .. call_id)
      end
    elseif kind ~= CANCEL and call_id ~= '' then
      read_call(run_id, call_id, kind == CLAIM)
      local run = kind == COMMIT and command[1] and runs[run_id]
      if run and not run.broken and not run.wiped then wish_more(run, command) end
    elseif runs[run_id] == nil then
      open(run_id)
    end
  end
  grant_wishes()
  read_results(commands)
end
