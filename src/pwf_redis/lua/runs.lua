-- runs.lua: the request, and the runs that it names, read into Lua tables and written back.
--
-- The first of four parts of one constant script, put together when scripts are loaded: this one,
-- transition.lua with the rules, messages.lua, and exchange.lua or start.lua, which is run.
--
-- KEYS[1]   pwf:{namespace:partition}:due. Its prefix names every other key; all share its slot.
-- ARGV[1]   The request: msgpack values, one after the other:
--             now_ms             0 for the server's clock
--             format             what the caller believes that `format` says
--             paired             true: calls go through an outbox; false: into streams here
--             retention_ms
--             dead_retention_ms
--             key_grace_ms       how long a key outlives its run
--             count              of commands, which follow (shapes: at `act` in transition.lua)
--           and then what the entry point says.
-- ARGV[n]   Payloads; commands name them by n. They are never looked into.
--
-- Theory of operation. First everything is read and judged, on copies in Lua tables; then, in
-- `flush`, everything is written, with commands that cannot fail. So an error in between leaves
-- nothing behind, an item sees what earlier ones did, a run that many items name is read and
-- written once, and what was born and ended within one script never touches the keyspace.
--
-- What costs time in Redis's Lua: calls into Redis (2 us each, so they are few), tables that grow
-- (so they are made in their final size where that is known), and new strings, numbers made into
-- text above all (so each is made once, see `packed` and `digits`). Hence records are msgpack
-- values one after the other, not arrays: `{ cmsgpack.unpack(record) }` makes one table.
-- And functions, which are made anew each time a script is run: for each local of the same block that one
-- shares with it, Lua walks through all that are shared there. So a line `--== … ==` begins a chapter:
-- it becomes a function within the chapter before (scripts.py), whose locals are found at once.
--
-- A later version of the same FORMAT may append values to a record: strings, numbers, booleans, and
-- lists of these that are not empty, but no nil. They are not read here, and stay with the record
-- however often it is written. What has to change whenever something else does needs a new FORMAT.
--
-- A run is one hash, `run:<run id>`:
--   h                   header (H_ below)
--   k                   the user's key, where there is one
--   y                   why the run failed or stalled, where that is known
--   b:<call id>         body of a call, or of the call that a join or a gather will make, unless small
--   c:<call id>         call (C_ below)
--   y:<call id>         its last error, or why it is parked
--   e:<event>           payload of an event that has happened
--   j:<call id>         join that has not fired (J_ below)
--   w:<event>           the join registered last of those that miss this event; each names the one
--                       before it, so that registering costs the same however many there are
--   s:<call id>         gather that has not fired (S_ below)
--   r:<scope>:<member>  result of a member; "r::0" is the run's own
--   u:<call id>:<n>     part of a decision that is not committed yet, or not made into calls (U_ below)
--   n:<call id>         what is left to do of a call that has been committed (N_ below)
-- Beside it, all sorted sets have members <run id>:<call id>:<service>:
--   due                 sorted set by due time; a run's own timer is <run id>::
--   dead                sorted set of dead letters by time of death
--   key:<key>           <run id>:<fingerprint>
--   done:<run id>       channel that hears how the run ended
--   format              the FORMAT of the namespace, a blank, and "fused" or "paired"; where there are
--                       partitions, how many: see pwf_redis/layout.py

local unpack_limit = cmsgpack.unpack_limit
local request = ARGV[1]
local at = 0  -- in the request

-- Return the next values of the request as a table, from index 2 on.
local function read(size)
  local values = { unpack_limit(request, size, at) }
  at = values[1]
  return values
end

local settings = read(7)
local now, format, paired, retention_ms = settings[2], settings[3], settings[4], settings[5]
local dead_retention_ms, key_grace_ms = settings[6], settings[7]
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local prefix = string.sub(KEYS[1], 1, -4)

-- Lua's `unpack` fails by 8,000 values. Even, for commands that take pairs.
local CHUNK = 1000

-- The numbers of pwf_core.transition.
local MAX_LOST, SUSPECT_LOST, DEFER_MS, OUTBOX_MS = 5, 2, 100, 2000
local UNCLAIMED_MS, MOST_UNCLAIMED = 60000, 4

local FORMAT = 1
local H_FORMAT, H_STATUS, H_PENDING, H_LIVE, H_DEAD, H_DROPPED, H_EXTERNAL, H_DUE, H_EVENTS =
  1, 2, 3, 4, 5, 6, 7, 8, 9
-- H_RESTS lists <call id>:<service> of what is left to do of calls, as it stands in `due`.
local H_TIMED, H_RESTS = 10, 11
local RUNNING, WAITING, STALLED, FINISHED, FAILED, CANCELLED = 1, 2, 3, 4, 5, 6

-- The first two are this script's own: whether the call is to be written, and its member in sorted
-- sets (false: not needed yet). A small body is part of the record; a larger one (in bytes) has a
-- field of its own, so that it is written once, and false stands here.
local C_WRITE, C_NAME = 1, 2
local C_PHASE, C_GENERATION, C_ATTEMPTS, C_LOST, C_DUE, C_CLAIM = 3, 4, 5, 6, 7, 8
local C_ADDRESS, C_SCOPE, C_MEMBER, C_GATHERED, C_JOINED, C_REASON = 9, 10, 11, 12, 13, 14
local C_UNCLAIMED, C_BODY, C_CHUNKS = 15, 16, 17
local SMALL = 512
local OUTBOX, QUEUED, LEASED, TIMED, PARKED, DEAD = 1, 2, 3, 4, 5, 6

-- Joins and gathers are made into calls by the same code: M_ is what both have in front.
local M_ADDRESS, M_DELAY, M_AT, M_SCOPE, M_MEMBER, M_BODY = 1, 2, 3, 4, 5, 6
-- J_LATE is false, or { call id, address, delay, at, body }: the call made when J_DUE (or 0) is over.
local J_EVENTS, J_EXTERNAL, J_BEFORE, J_MISSING, J_OUTSIDE = 7, 8, 9, 10, 11
local J_DUE, J_LATE, J_LAPSED = 12, 13, 14
-- S_WRITE is this script's own: whether the gather is to be written; `unpack` begins at 1.
local S_WRITE, S_SIZE, S_TOLERATED, S_FAILED, S_LOST, S_PENDING = 0, 7, 8, 9, 10, 11

-- A part of a decision is one msgpack array, of U_WIDTH values for each call: id, address, body, delay,
-- due, number of the gather from 0 (or -1), number of the member.
local U_WIDTH = 7
local N_ADDRESS, N_DUE, N_SCOPE, N_MEMBER, N_CHUNK, N_CHUNKS, N_RESULTS, N_GATHERS = 1, 2, 3, 4, 5, 6, 7, 8

-- The numbers of pwf_core.scopes.
local BROUGHT, PAGE, PAGE_BYTES = 250, 1000, 262144

-- The form of a failure among results: see pwf_core/failures.py.
local EXTENSION, FAILURE, LONGEST = 201, 80, 4096

local DONE, ENDED, LOST, BUSY, STALE, DEFERRED, REFUSED = 0, 1, 2, 3, 4, 5, 6

-- What this script has found out and decided so far.
local runs = {}      -- run id -> run; false where there is none
local opened = {}    -- every run in `runs`, and those that were deleted, in order
local timers = {}    -- member of `due` -> time, or false
local letters = {}   -- member of `dead` -> time, or false
local keys = {}      -- user's key -> value of key:<key>, or false
local new_keys = {}  -- those to write
local old_keys = {}  -- those whose runs are gone
local ends = {}      -- { run id, outcome } to be told
local queued = {}    -- service -> its new messages: run id, call id, generation, address, and so on
local services = {}  -- the services in `queued`, in order
local awaited        -- due time and service of the earliest delayed call set here
local ended_address  -- of the call that this command ended, for people
local ended_id

local NONE = {}  -- an empty list, never changed

-- What many records have in common is packed once: number, boolean, list or short text -> msgpack.
local packed = setmetatable({}, { __index = function(known, value)
  local text = cmsgpack.pack(value)
  known[value] = text
  return text
end })

-- Length -> what msgpack puts before a text of that length. So a body is copied, and not packed first.
local before_text = setmetatable({}, { __index = function(known, length)
  local text = string.sub(cmsgpack.pack(string.rep(' ', length)), 1, -length - 1)
  known[length] = text
  return text
end })

-- Number -> its decimal digits.
local digits = setmetatable({}, { __index = function(known, number)
  local text = tostring(number)
  known[number] = text
  return text
end })

--== reading runs ===============================================================================

-- A run: `calls` and `scopes` by id; `has`, its other fields (records as tables, to be changed in
-- place and marked in `out`); in these, false is what there is none of, nil what was not read yet;
-- `h`, its header, once that was needed, and `was`, the same as it is stored.
-- Further: `write` (the header), `gone` (fields to delete), `fresh` (nothing of it is in the
-- keyspace), `wipe` (delete all of it first), `deleted`, `broken` (why it cannot be read).
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
  if run.h[H_FORMAT] ~= FORMAT then
    error('the run is stored in format ' .. tostring(run.h[H_FORMAT]), 0)
  end
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
  if run.fresh then return end
  local unknown = {}
  for _, field in ipairs(fields) do
    if run.has[field] == nil then unknown[#unknown + 1] = field end
  end
  fetch(run, unknown)
end

local function get(run, field)
  local value = run.has[field]
  if value == nil then
    if run.fresh then return false end
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
    if run.fresh then return false end
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

local function bulk(command, key, arguments)
  for first = 1, #arguments, CHUNK do
    local final = math.min(first + CHUNK - 1, #arguments)
    redis.call(command, key, unpack(arguments, first, final))
  end
end

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
  if run.wipe then redis.call('UNLINK', run.key) end
  bulk('HSET', run.key, set)
  if not run.fresh then bulk('HDEL', run.key, gone) end
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
  for _, key in ipairs(new_keys) do redis.call('SET', prefix .. 'key:' .. key, keys[key]) end
  for _, key in ipairs(old_keys) do redis.call('PEXPIRE', prefix .. 'key:' .. key, key_grace_ms) end
  write_sorted_set(KEYS[1], timers)
  write_sorted_set(prefix .. 'dead', letters)
  for _, one in ipairs(ends) do redis.call('PUBLISH', prefix .. 'done:' .. one[1], one[2]) end
end

---- reading the request, and what it is going to need -------------------------------------------

-- A command is a table; [1] is not used, [2] its kind, [3] its run id. In the request each takes
-- nine values, filled up at the end; what a commit makes follows it.
local START, CLAIM, RENEW, COMMIT, POSTPONE, BURY, EMIT, SETTLE, FIRE, REQUEUE, DROP, CANCEL =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
local STAGE, COLLECT = 13, 14
local WIDTH = 9

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

local reading = {}  -- runs with fields to be read

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
  elseif run and run.calls[call_id] == nil and not run.broken and not run.fresh then
    wish(run, 'c:' .. call_id)
  end
end

-- A result is written once; where it would stand, the call knows.
local function read_results(commands)
  for _, command in ipairs(commands) do
    if command[2] == COMMIT and command[6] ~= 0 then
      local run = runs[command[3]]
      local call = run and not run.broken and run.calls[command[4]]
      if call and not run.fresh then wish(run, 'r:' .. call[C_SCOPE] .. ':' .. digits[call[C_MEMBER]]) end
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
      if run and not run.broken and not run.fresh then
        wish(run, 'e:' .. call_id)
        wish(run, 'w:' .. call_id)
      end
    elseif kind ~= START and kind ~= CANCEL and call_id ~= '' then
      read_call(run_id, call_id, kind == CLAIM)
      local run = kind == COMMIT and command[1] and runs[run_id]
      if run and not run.broken and not run.fresh then wish_more(run, command) end
    elseif runs[run_id] == nil then
      open(run_id)
    end
  end
  grant_wishes()
  read_results(commands)
end
