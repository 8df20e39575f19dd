-- transition.lua: what pwf_core/transition.py says, done inside Redis.
--
-- The second of four parts of one script; see runs.lua for KEYS, ARGV and how runs are stored.
-- Functions stand in the order of the reference and carry its names. Nothing here writes: what a
-- command changes, it changes in tables, and notes for `flush`.

--== effects ====================================================================================

local service_names = {}

local function service_of(address)
  local service = service_names[address]
  if not service then
    service = string.match(address, '^[^.]*')
    service_names[address] = service
  end
  return service
end

local function name_of(run, call_id, call)
  local name = call[C_NAME]
  if not name then
    name = run.id .. ':' .. call_id .. ':' .. service_of(call[C_ADDRESS])
    call[C_NAME] = name
  end
  return name
end

local function set_run_timer(run, due)
  header(run)[H_DUE] = due or 0
  run.write = true
  timers[run.id .. '::'] = due
end

local function send(run, call_id, call)
  local service = service_of(call[C_ADDRESS])
  local queue = queued[service]
  if not queue then
    queue = { taken = 0, size = 0 }
    queued[service] = queue
    services[#services + 1] = service
  end
  local size = queue.size
  queue[size + 1], queue[size + 2] = run.id, call_id
  queue[size + 3], queue[size + 4] = call[C_GENERATION], call[C_ADDRESS]
  queue.size = size + 4
end

local function reason_of(run)
  return get(run, 'y') or ''
end

local function set_reason(run, reason)
  if reason ~= reason_of(run) then put(run, 'y', reason ~= '' and reason) end
end

local function end_run(run)
  local result, reason = get(run, 'r::0'), reason_of(run)
  ends[#ends + 1] = {
    run.id,
    struct.pack('>BBI4', header(run)[H_STATUS], result and 1 or 0, #reason) .. reason .. (result or ''),
  }
end

local function delete_run(run)
  local key = get(run, 'k')
  if key then old_keys[#old_keys + 1] = key end
  run.deleted = true
  runs[run.id] = false
end

---- the life of a call -------------------------------------------------------------------------

local function wait(run, call_id, call, phase, delay_ms)
  call[C_PHASE] = phase
  call[C_DUE] = now + delay_ms
  if phase ~= LEASED then call[C_CLAIM] = '' end
  call[C_WRITE] = true
  timers[name_of(run, call_id, call)] = call[C_DUE]
end

local function enqueue(run, call_id, call)
  if paired then
    wait(run, call_id, call, OUTBOX, OUTBOX_MS)
  else
    if call[C_DUE] ~= 0 then timers[name_of(run, call_id, call)] = false end
    call[C_PHASE] = QUEUED
    call[C_DUE] = 0
    call[C_CLAIM] = ''
    call[C_WRITE] = true
  end
  send(run, call_id, call)
end

-- Note the earliest due time that was set here: somebody may have to wake for it.
local function await(due, address)
  if not awaited or due < awaited.due then
    awaited = { due = due, service = service_of(address) }
  end
end

local function schedule(run, call_id, call, delay_ms, phase)
  if delay_ms > 0 then
    wait(run, call_id, call, phase, delay_ms)
    await(call[C_DUE], call[C_ADDRESS])
  else
    enqueue(run, call_id, call)
  end
end

local function enter(run, scope, size)
  if scope == '' then
    count(run, H_PENDING, size)
  else
    local record = get_scope(run, scope)
    record[S_PENDING] = record[S_PENDING] + size
    record[S_WRITE] = true
  end
end

-- Put a large body where it is written once; return what is to stand in the record.
local function stow(run, call_id, body)
  if #body <= SMALL then return body end
  put(run, 'b:' .. call_id, body)
  return false
end

-- body: false if it is in a field of its own.
-- counted: whether its scope and its run know of it already.
local function add(run, call_id, address, body, delay_ms, at_ms, scope, member, joined, gathered, counted)
  local call = {
    true, false, QUEUED, 0, 0, 0, 0, '', address, scope, member, gathered, joined, 0, 0, body, 0,
  }
  run.calls[call_id] = call
  if not counted then
    count(run, H_LIVE, 1)
    enter(run, scope, 1)
  end
  if at_ms > 0 then delay_ms = math.max(at_ms - now, 0) end
  schedule(run, call_id, call, delay_ms, TIMED)
end

-- new: { call id, address, body, delay_ms, due_ms } from 2 on
local function add_new(run, new, scope, member)
  local body = stow(run, new[2], ARGV[new[4]])
  add(run, new[2], new[3], body, new[5], new[6], scope, member, NONE, -1)
end

local function make(run, call_id, maker, joined, gathered)
  add(
    run, call_id, maker[M_ADDRESS], maker[M_BODY], maker[M_DELAY], maker[M_AT],
    maker[M_SCOPE], maker[M_MEMBER], joined, gathered
  )
end

local function claimed(run, call_id, claim_id)
  local call = get_call(run, call_id)
  if not call then return nil, ENDED end
  if call[C_PHASE] ~= LEASED or call[C_CLAIM] ~= claim_id then return nil, LOST end
  return call
end

-- Append what a worker is to know of a call to a list, and return that: run id, call id, generation,
-- address, body, attempts, lost, events or false, results or false, uncollected. Events alternate names
-- and payloads; a member without a result has false.
local function grant(run, call_id, call, grants)
  local events, results, uncollected = false, false, 0
  if #call[C_JOINED] > 0 then
    local fields = {}
    for number, event in ipairs(call[C_JOINED]) do fields[number] = 'e:' .. event end
    prepare(run, fields)
    events = {}
    for number, event in ipairs(call[C_JOINED]) do
      events[2 * number - 1], events[2 * number] = event, get(run, fields[number])
    end
  end
  if call[C_GATHERED] > BROUGHT then
    uncollected = call[C_GATHERED]
  elseif call[C_GATHERED] >= 0 then
    local fields = {}
    for number = 1, call[C_GATHERED] do fields[number] = 'r:' .. call_id .. ':' .. digits[number - 1] end
    prepare(run, fields)
    results = {}
    for number, field in ipairs(fields) do results[number] = get(run, field) end
  end
  local size = #grants
  grants[size + 1], grants[size + 2], grants[size + 3] = run.id, call_id, call[C_GENERATION]
  grants[size + 4], grants[size + 5] = call[C_ADDRESS], call[C_BODY] or get(run, 'b:' .. call_id)
  grants[size + 6], grants[size + 7], grants[size + 8] = call[C_ATTEMPTS], call[C_LOST], events
  grants[size + 9], grants[size + 10] = results, uncollected
  return grants
end

local function is_failure(result)
  return result and #result > 5 and string.byte(result) == EXTENSION and string.byte(result, 6) == FAILURE
end

local function fail_member(run, scope, member, reason)
  local inner = {}
  while scope ~= '' do
    local record = get_scope(run, scope)
    local field = 'r:' .. scope .. ':' .. digits[member]
    local before = is_failure(get(run, field))
    if before or record[S_FAILED] < record[S_TOLERATED] then
      if not before then
        local text = string.sub(reason, -LONGEST)
        put(run, field, struct.pack('>BI4B', EXTENSION, #text, FAILURE) .. text)
        record[S_FAILED] = record[S_FAILED] + 1
        record[S_WRITE] = true
      end
      for _, one in ipairs(inner) do one[S_LOST], one[S_WRITE] = true, true end
      return true
    end
    inner[#inner + 1] = record
    scope, member = record[M_SCOPE], record[M_MEMBER]
  end
  return false
end

local function lose(run, scope)
  while scope ~= '' do
    local record = get_scope(run, scope)
    record[S_LOST], record[S_WRITE] = true, true
    scope = record[M_SCOPE]
  end
end

-- Have a member, of which something is gone for good, fail; or else the run.
local function fail(run, scope, member, reason)
  if fail_member(run, scope, member, reason) then return end
  lose(run, scope)
  count(run, H_DROPPED, 1)
  set_reason(run, reason)
end

local function blame(call_id, address, reason)
  return address .. ' (' .. call_id .. '): ' .. reason
end

local function take_results(run, scope, first, size)
  for number = first, size - 1 do put(run, 'r:' .. scope .. ':' .. digits[number], false) end
end

--== what is left to do of a call =================================================================

local function set_timer(run, id, address, due)
  timers[run.id .. ':' .. id .. ':' .. service_of(address)] = due
end

local function position(list, wanted)
  for number, one in ipairs(list) do
    if one == wanted then return number end
  end
end

local function count_staged(run, scope, size)
  if size > 0 then
    count(run, H_LIVE, size)
    enter(run, scope, size)
  end
end

-- Return what is left to do of a call that has gone, with a timer to do it.
local function rest_of(run, call_id, address)
  local rest = get(run, 'n:' .. call_id)
  if not rest then
    rest = { address, now, '', 0, 0, 0, 0, NONE }
    local rests = header(run)[H_RESTS]
    rests[#rests + 1] = call_id .. ':' .. service_of(address)
    run.write = true
    set_timer(run, call_id, address, now)
    await(now, address)
  end
  put(run, 'n:' .. call_id, rest)
  return rest
end

-- Forget the results of a gather, in pieces if there are many.
local function forget(run, call_id, address, size)
  if size > BROUGHT then
    rest_of(run, call_id, address)[N_RESULTS] = size
  else
    take_results(run, call_id, 0, size)
  end
end

local function unstage(run, call_id, call)
  for number = 0, call[C_CHUNKS] - 1 do put(run, 'u:' .. call_id .. ':' .. number, false) end
  call[C_CHUNKS] = 0
end

-- Do the next piece of what is left.
local function move_on(run, id, rest)
  if rest[N_CHUNK] < rest[N_CHUNKS] then
    local field = 'u:' .. id .. ':' .. rest[N_CHUNK]
    local calls = cmsgpack.unpack(get(run, field))
    for at = 1, #calls, U_WIDTH do
      local scope, member, gather = rest[N_SCOPE], rest[N_MEMBER], calls[at + 5]
      if gather >= 0 then scope, member = rest[N_GATHERS][gather + 1], calls[at + 6] end
      local body = stow(run, calls[at], calls[at + 2])
      add(
        run, calls[at], calls[at + 1], body, calls[at + 3], calls[at + 4], scope, member, NONE, -1, true
      )
    end
    put(run, field, false)
    rest[N_CHUNK] = rest[N_CHUNK] + 1
  else
    local first = math.max(rest[N_RESULTS] - PAGE, 0)
    take_results(run, id, first, rest[N_RESULTS])
    rest[N_RESULTS] = first
  end
  if rest[N_CHUNK] < rest[N_CHUNKS] or rest[N_RESULTS] > 0 then
    rest[N_DUE] = now
    mark(run, 'n:' .. id)
    set_timer(run, id, rest[N_ADDRESS], now)
    await(now, rest[N_ADDRESS])
  else
    put(run, 'n:' .. id, false)
    local rests = header(run)[H_RESTS]
    table.remove(rests, position(rests, id .. ':' .. service_of(rest[N_ADDRESS])))
    run.write = true
    set_timer(run, id, rest[N_ADDRESS], false)
  end
end

local function leave(run, scope)
  while scope ~= '' do
    local record = get_scope(run, scope)
    record[S_PENDING] = record[S_PENDING] - 1
    record[S_WRITE] = true
    if record[S_PENDING] > 0 then return end
    run.scopes[scope] = nil
    put(run, 's:' .. scope, false)
    if record[S_LOST] then
      if not record[M_BODY] then put(run, 'b:' .. scope, false) end
      forget(run, scope, record[M_ADDRESS], record[S_SIZE])
    else
      make(run, scope, record, NONE, record[S_SIZE])
    end
    scope = record[M_SCOPE]  -- the gather's own place, after its call has taken one
  end
  count(run, H_PENDING, -1)
end

local function remove(run, call_id, call)
  run.calls[call_id] = false
  local gone = run.gone
  if gone then gone[#gone + 1] = 'c:' .. call_id else run.gone = { 'c:' .. call_id } end
  if not call[C_BODY] then put(run, 'b:' .. call_id, false) end
  if call[C_REASON] == 1 then put(run, 'y:' .. call_id, false) end
  ended_address, ended_id = call[C_ADDRESS], call_id
  count(run, H_LIVE, -1)
  if call[C_DUE] ~= 0 then timers[name_of(run, call_id, call)] = false end
  unstage(run, call_id, call)
  forget(run, call_id, call[C_ADDRESS], call[C_GATHERED])
  leave(run, call[C_SCOPE])
end

local function explain(run, call_id, call, reason)
  if reason ~= '' then
    put(run, 'y:' .. call_id, reason)
    call[C_REASON] = 1
  elseif call[C_REASON] == 1 then
    put(run, 'y:' .. call_id, false)
    call[C_REASON] = 0
  end
end

local function bury(run, call_id, call, reason)
  local blamed = blame(call_id, call[C_ADDRESS], reason)
  if fail_member(run, call[C_SCOPE], call[C_MEMBER], blamed) then
    remove(run, call_id, call)
    return
  end
  call[C_PHASE] = DEAD
  call[C_CLAIM] = ''
  call[C_DUE] = 0
  call[C_WRITE] = true
  explain(run, call_id, call, reason)
  count(run, H_LIVE, -1)
  count(run, H_DEAD, 1)
  set_reason(run, blamed)
  local name = name_of(run, call_id, call)
  timers[name] = false
  letters[name] = now
end

local function revive(run, call_id, call)
  count(run, H_DEAD, -1)
  count(run, H_LIVE, 1)
  if header(run)[H_DEAD] == 0 and run.h[H_DROPPED] == 0 then set_reason(run, '') end
  letters[name_of(run, call_id, call)] = false
end

---- joins, scopes, the run ---------------------------------------------------------------------

local function forget_late(run, join)
  local late = join[J_LATE]
  if late and not late[5] then put(run, 'b:' .. late[1], false) end
end

-- Say whether nothing is missing: the join is to fire now.
local function register(run, join_id, join)
  local missing, outside = 0, 0
  for number, event in ipairs(join[J_EVENTS]) do
    join[J_BEFORE][number] = ''
    if not get(run, 'e:' .. event) then
      missing = missing + 1
      if position(join[J_EXTERNAL], event) then outside = outside + 1 end
      join[J_BEFORE][number] = get(run, 'w:' .. event) or ''
      put(run, 'w:' .. event, join_id)
    end
  end
  if missing == 0 then return true end
  join[J_MISSING], join[J_OUTSIDE] = missing, outside
  put(run, 'j:' .. join_id, join)
  if outside > 0 then count(run, H_EXTERNAL, 1) end
  if join[J_DUE] > 0 then
    count(run, H_TIMED, 1)
    set_timer(run, join_id, join[M_ADDRESS], join[J_DUE])
    await(join[J_DUE], join[M_ADDRESS])
  end
  return false
end

-- Say whether the event is new.
local function emit(run, event, payload)
  if get(run, 'e:' .. event) then return false end
  put(run, 'e:' .. event, payload)
  count(run, H_EVENTS, 1)
  local ready = {}  -- in the opposite order of registration
  local join_id = get(run, 'w:' .. event) or ''
  if join_id ~= '' then put(run, 'w:' .. event, false) end
  while join_id ~= '' do
    local join = get(run, 'j:' .. join_id)
    join[J_MISSING] = join[J_MISSING] - 1
    if position(join[J_EXTERNAL], event) and not join[J_LAPSED] then
      join[J_OUTSIDE] = join[J_OUTSIDE] - 1
      if join[J_OUTSIDE] == 0 then count(run, H_EXTERNAL, -1) end
    end
    if join[J_MISSING] == 0 then
      put(run, 'j:' .. join_id, false)
      if not join[J_LAPSED] then ready[#ready + 1] = { join_id, join } end
    else
      mark(run, 'j:' .. join_id)
    end
    join_id = join[J_BEFORE][position(join[J_EVENTS], event)]
  end
  for number = #ready, 1, -1 do
    local join = ready[number][2]
    if join[J_DUE] > 0 then
      count(run, H_TIMED, -1)
      set_timer(run, ready[number][1], join[M_ADDRESS], false)
      forget_late(run, join)
    end
    make(run, ready[number][1], join, join[J_EVENTS], -1)
    leave(run, join[M_SCOPE])  -- the join's own place, after its call has taken one
  end
  return true
end

-- new: { call id, address, body, delay_ms, due_ms, events, external, timeout_ms, late } from 2 on;
-- late: { call id, address, body, delay_ms, due_ms }, or false
local function add_join(run, new, scope, member)
  local body, due, late = stow(run, new[2], ARGV[new[4]]), 0, new[10]
  if new[9] > 0 then due = now + new[9] end
  if late then
    late = { late[1], late[2], late[4], late[5], stow(run, late[1], ARGV[late[3]]) }
  end
  local join = {
    new[3], new[5], new[6], scope, member, body, new[7], new[8], {}, 0, 0, due, late, false,
  }
  if register(run, new[2], join) then
    forget_late(run, join)
    make(run, new[2], join, new[7], -1)
  else
    enter(run, scope, 1)
  end
end

local function lapse(run, join_id, join)
  local late = join[J_LATE]
  if not join[M_BODY] then put(run, 'b:' .. join_id, false) end
  join[J_LAPSED], join[J_DUE], join[J_LATE], join[M_BODY] = true, 0, false, ''
  mark(run, 'j:' .. join_id)
  count(run, H_TIMED, -1)
  if join[J_OUTSIDE] > 0 then count(run, H_EXTERNAL, -1) end
  local happened, missing = {}, {}
  for _, event in ipairs(join[J_EVENTS]) do
    if get(run, 'e:' .. event) then
      happened[#happened + 1] = event
    else
      missing[#missing + 1] = event
    end
  end
  if late then
    add(
      run, late[1], late[2], late[5], late[3], late[4],
      join[M_SCOPE], join[M_MEMBER], happened, -1
    )
  else
    local words = 'its join timed out without ' .. table.concat(missing, ', ')
    fail(run, join[M_SCOPE], join[M_MEMBER], blame(join_id, join[M_ADDRESS], words))
  end
  leave(run, join[M_SCOPE])  -- the join's own place, after its call has taken one
end

-- new: { call id, address, body, delay_ms, due_ms, count of members, tolerated, staged } from 2 on
local function add_gather(run, new, members, scope, member)
  local body = stow(run, new[2], ARGV[new[4]])
  local size = #members + new[9]
  local record = { new[3], new[5], new[6], scope, member, body, size, new[8], 0, false, 0, [S_WRITE] = true }
  if size == 0 then
    make(run, new[2], record, NONE, 0)
    return
  end
  if run.scopes == NONE then run.scopes = {} end
  run.scopes[new[2]] = record
  enter(run, scope, 1)
  for number, call in ipairs(members) do add_new(run, call, new[2], number - 1) end
  count_staged(run, new[2], new[9])
end

-- Have nothing fire that is left to do of calls of a run that goes.
local function drop_rests(run)
  for _, name in ipairs(header(run)[H_RESTS]) do timers[run.id .. ':' .. name] = false end
  run.h[H_RESTS] = {}
end

-- Forget the events of a run that is over. Nothing else is left in it but the fields named here, so
-- the whole hash goes in one stroke, and a small one takes its place.
local function clear(run)
  header(run)[H_EVENTS] = 0
  local has, out = {}, {}
  for _, field in ipairs({ 'k', 'y', 'r::0' }) do
    has[field] = run.has[field]
    if has[field] then out[field] = true end
  end
  run.has, run.out, run.calls, run.scopes, run.gone = has, out, {}, NONE, nil
  run.write, run.was, run.wipe = true, nil, not run.fresh
  run.fresh = true
end

-- Say how the run ended, and have what is left of it deleted in time.
local function finish(run)
  local h = header(run)
  prepare(run, { 'k', 'y', 'r::0' })
  end_run(run)
  local keep_ms = dead_retention_ms
  if h[H_PENDING] == 0 then
    drop_rests(run)
    clear(run)
    keep_ms = retention_ms
    if keep_ms == 0 then
      if h[H_DUE] ~= 0 then timers[run.id .. '::'] = false end
      delete_run(run)
      return
    end
  end
  set_run_timer(run, now + keep_ms)
end

local function conclude(run)
  local h = header(run)
  local before, pending = h[H_STATUS], h[H_PENDING] > 0
  local status
  if not pending then
    status = h[H_DROPPED] > 0 and FAILED or FINISHED
  elseif h[H_LIVE] > 0 then
    status = RUNNING
  elseif h[H_TIMED] > 0 then
    status = WAITING
  elseif h[H_DEAD] > 0 or h[H_DROPPED] > 0 then
    status = FAILED
  else
    status = h[H_EXTERNAL] > 0 and WAITING or STALLED
  end
  if status == before and pending then return end
  if status == STALLED then
    local words = 'the last call to end was %s (%s).'
    set_reason(run, ended_id and string.format(words, ended_address, ended_id) or '')
  elseif before == STALLED then
    set_reason(run, '')
  end
  h[H_STATUS] = status
  run.write = true
  if status ~= RUNNING and status ~= WAITING then
    finish(run)
  elseif h[H_DUE] ~= 0 then
    set_run_timer(run, false)
  end
end

-- Read all open calls, and all joins if wanted.
local function read_open(run, with_joins)
  if run.fresh then return end
  local unknown = {}
  for _, field in ipairs(redis.call('HKEYS', run.key)) do
    local kind = string.sub(field, 1, 2)
    if kind == 'c:' or (with_joins and kind == 'j:') then unknown[#unknown + 1] = field end
  end
  fetch(run, unknown)
end

local function cancel(run, reason)
  -- LIMIT: all that is open goes in one stroke, which takes time for each call and join.
  read_open(run, true)
  for call_id, call in pairs(run.calls) do
    if call then
      local name = name_of(run, call_id, call)
      if call[C_PHASE] == DEAD then
        letters[name] = false
      elseif call[C_DUE] ~= 0 then
        timers[name] = false
      end
    end
  end
  for field, join in pairs(run.has) do
    if join and string.byte(field) == 106 and join[J_DUE] > 0 then  -- j
      set_timer(run, string.sub(field, 3), join[M_ADDRESS], false)
    end
  end
  local h = header(run)
  for _, what in ipairs({ H_PENDING, H_LIVE, H_DEAD, H_DROPPED, H_EXTERNAL, H_TIMED }) do h[what] = 0 end
  h[H_STATUS] = CANCELLED
  run.write = true
  set_reason(run, reason)
  finish(run)
end

local function expire(run)
  local due = header(run)[H_DUE]
  if due == 0 or due > now then return STALE end
  -- LIMIT: a run is deleted in one stroke. Its memory is freed by another thread; what costs time
  -- here is one entry of `dead` per dead letter.
  read_open(run, false)
  for call_id, call in pairs(run.calls) do
    if call then letters[name_of(run, call_id, call)] = false end
  end
  drop_rests(run)
  set_run_timer(run, false)
  delete_run(run)
  return DONE
end

---- commands ------------------------------------------------------------------------------------

local act = {}

-- START, run id, call id, address, body, delay_ms, due_ms, key, fingerprint
act[START] = function(_, command)
  local run_id, key, fingerprint = command[3], command[9], command[10]
  if key ~= '' then
    if keys[key] == nil then keys[key] = redis.call('GET', prefix .. 'key:' .. key) end
    if keys[key] then
      local known, print_of_known = string.match(keys[key], '^([^:]*):(.*)$')
      return { known, 0, print_of_known ~= fingerprint and 1 or 0 }
    end
  end
  if find(run_id) then return { run_id, 0, 0 } end
  local run = new_run(run_id)
  run.fresh, run.write = true, true
  run.h = { FORMAT, RUNNING, 0, 0, 0, 0, 0, 0, 0, 0, {} }
  runs[run_id] = run
  if key ~= '' then
    put(run, 'k', key)
    keys[key] = run_id .. ':' .. fingerprint
    new_keys[#new_keys + 1] = key
  end
  local body = stow(run, command[4], ARGV[command[6]])
  add(run, command[4], command[5], body, command[7], command[8], '', 0, NONE, -1)
  return { run_id, 1, 0 }
end

-- Grant the call, and return `grants`; or say why not.
local function claim(run, call_id, generation, claim_id, lease_ms, suspects, grants)
  local call = get_call(run, call_id)
  if not call then return ENDED end
  local leased = call[C_PHASE] == LEASED
  if leased and call[C_CLAIM] == claim_id then return grant(run, call_id, call, grants) end
  if generation < call[C_GENERATION] then return STALE end
  if generation > call[C_GENERATION] then
    -- The store went back in time: it has forgotten what made this copy. Adopt it.
    call[C_GENERATION] = generation
    if call[C_PHASE] == DEAD then
      revive(run, call_id, call)
      conclude(run)
    end
  elseif leased then
    return BUSY
  elseif call[C_PHASE] ~= QUEUED and call[C_PHASE] ~= OUTBOX then
    return STALE
  end
  if call[C_LOST] >= SUSPECT_LOST and not suspects then
    call[C_GENERATION] = call[C_GENERATION] + 1
    wait(run, call_id, call, TIMED, DEFER_MS)
    return DEFERRED
  end
  call[C_CLAIM] = claim_id
  call[C_UNCLAIMED] = 0
  unstage(run, call_id, call)
  call[C_ATTEMPTS] = call[C_ATTEMPTS] + 1
  wait(run, call_id, call, LEASED, lease_ms)
  return grant(run, call_id, call, grants)
end

-- CLAIM, run id, call id, generation, claim id, lease_ms, suspects
act[CLAIM] = function(run, command)
  return claim(run, command[4], command[5], command[6], command[7], command[8], {})
end

-- RENEW, run id, call id, claim id, lease_ms
act[RENEW] = function(run, command)
  local call, problem = claimed(run, command[4], command[5])
  if not call then return problem end
  wait(run, command[4], call, LEASED, command[6])
  return DONE
end

-- COMMIT, run id, call id, claim id, result, counts of emits, joins, gathers and calls; then
--   emits     event, payload
--   joins     see add_join
--   gathers   see add_gather; then the members, like calls
--   calls     call id, address, body, delay_ms, due_ms
-- Those lists become [1], { emits, joins, gathers, members of each, calls }; false if all are empty.
-- The result is a number of ARGV, or 0; or { that, chunks, staged } for a decision in parts.
act[COMMIT] = function(run, command)
  local call, problem = claimed(run, command[4], command[5])
  if not call then return problem end
  local scope, member, made = call[C_SCOPE], call[C_MEMBER], command[1]
  local result, chunks, staged = command[6], 0, 0
  if type(result) == 'table' then result, chunks, staged = unpack(result) end
  if chunks ~= call[C_CHUNKS] then return LOST end  -- the store has forgotten a part, or never had it
  if result > 0 then
    local field = 'r:' .. scope .. ':' .. digits[member]
    if not get(run, field) then put(run, field, ARGV[result]) end
  end
  if made then
    local emits, joins, gathers, members, calls = unpack(made)
    for number = 1, #emits do emit(run, emits[number][2], ARGV[emits[number][3]]) end
    for number = 1, #joins do add_join(run, joins[number], scope, member) end
    for number = 1, #gathers do add_gather(run, gathers[number], members[number], scope, member) end
    for number = 1, #calls do add_new(run, calls[number], scope, member) end
  end
  count_staged(run, scope, staged)
  call[C_CHUNKS] = 0  -- they are the rest's now
  remove(run, command[4], call)
  if chunks > 0 then
    local rest, gathers = rest_of(run, command[4], call[C_ADDRESS]), {}
    for number, new in ipairs(made and made[3] or NONE) do gathers[number] = new[2] end
    rest[N_SCOPE], rest[N_MEMBER], rest[N_CHUNKS], rest[N_GATHERS] = scope, member, chunks, gathers
  end
  conclude(run)
  return DONE
end

-- STAGE, run id, call id, claim id, number, count; then calls: call id, address, body, delay_ms, due_ms,
-- number of the gather or -1, number of the member. They become [1].
act[STAGE] = function(run, command)
  local call_id, number = command[4], command[6]
  local call, problem = claimed(run, call_id, command[5])
  if not call then return problem end
  if number == call[C_CHUNKS] then
    local part = {}
    for _, new in ipairs(command[1]) do
      local at = #part
      part[at + 1], part[at + 2], part[at + 3] = new[2], new[3], ARGV[new[4]]
      part[at + 4], part[at + 5], part[at + 6], part[at + 7] = new[5], new[6], new[7], new[8]
    end
    put(run, 'u:' .. call_id .. ':' .. number, cmsgpack.pack(part))
    call[C_CHUNKS] = number + 1
    call[C_WRITE] = true
  end
  return number < call[C_CHUNKS] and DONE or LOST
end

-- COLLECT, run id, call id, claim id, first. Replies with a list of results, false for none.
act[COLLECT] = function(run, command)
  local call_id, first = command[4], command[6]
  local call, problem = claimed(run, call_id, command[5])
  if not call then return problem end
  local page, count, size = {}, 0, 0
  local final = math.min(call[C_GATHERED], first + PAGE) - 1
  for start = first, final, 50 do
    local fields = {}
    for number = start, math.min(start + 49, final) do
      fields[number - start + 1] = 'r:' .. call_id .. ':' .. number
    end
    -- Its members have all ended, so that nothing in hand is newer than what is stored.
    for _, value in ipairs(redis.call('HMGET', run.key, unpack(fields))) do
      count = count + 1
      page[count] = value
      size = size + #(value or '')
      if size >= PAGE_BYTES then return page end
    end
  end
  return page
end

-- POSTPONE, run id, call id, claim id, counts, phase, delay_ms, reason
act[POSTPONE] = function(run, command)
  local call_id = command[4]
  local call, problem = claimed(run, call_id, command[5])
  if not call then return problem end
  if not command[6] then call[C_ATTEMPTS] = call[C_ATTEMPTS] - 1 end
  explain(run, call_id, call, command[9])
  call[C_GENERATION] = call[C_GENERATION] + 1
  schedule(run, call_id, call, command[8], command[7])
  return DONE
end

-- BURY, run id, call id, claim id, reason
act[BURY] = function(run, command)
  local call, problem = claimed(run, command[4], command[5])
  if not call then return problem end
  bury(run, command[4], call, command[6])
  conclude(run)
  return DONE
end

-- EMIT, run id, event, payload
act[EMIT] = function(run, command)
  if header(run)[H_PENDING] == 0 then return ENDED end
  if not emit(run, command[4], ARGV[command[5]]) then return REFUSED end
  conclude(run)
  return DONE
end

-- SETTLE, run id, call id, generation
act[SETTLE] = function(run, command)
  local call = get_call(run, command[4])
  if not call then return ENDED end
  if call[C_PHASE] ~= OUTBOX or call[C_GENERATION] ~= command[5] then return STALE end
  local delay_ms = UNCLAIMED_MS * 4 ^ math.min(call[C_UNCLAIMED], MOST_UNCLAIMED)
  wait(run, command[4], call, QUEUED, delay_ms)
  return DONE
end

local function fire_join(run, join_id)
  local join = get(run, 'j:' .. join_id)
  if not join then return ENDED end
  if join[J_DUE] == 0 or join[J_DUE] > now then return STALE end
  lapse(run, join_id, join)
  conclude(run)
  return DONE
end

local has_rested = false  -- whether a rest was moved on: enough for one sweep

local function fire_rest(run, id, rest)
  if rest[N_DUE] > now then return STALE end
  move_on(run, id, rest)
  has_rested = true
  return DONE
end

-- FIRE, run id, call id, id of a join, or ''
act[FIRE] = function(run, command)
  local call_id = command[4]
  if call_id == '' then return expire(run) end
  local call = get_call(run, call_id)
  if not call then
    local rest = get(run, 'n:' .. call_id)
    return rest and fire_rest(run, call_id, rest) or fire_join(run, call_id)
  end
  if call[C_DUE] == 0 or call[C_DUE] > now then return STALE end
  if call[C_PHASE] == LEASED then
    call[C_LOST] = call[C_LOST] + 1
    call[C_GENERATION] = call[C_GENERATION] + 1
    if call[C_LOST] >= MAX_LOST then
      local reason = 'its worker died, or held it without renewing the lease, %d times'
      bury(run, call_id, call, string.format(reason, call[C_LOST]))
      conclude(run)
      return DONE
    end
  elseif call[C_PHASE] == QUEUED then
    call[C_UNCLAIMED] = call[C_UNCLAIMED] + 1
  end
  enqueue(run, call_id, call)
  return DONE
end

-- REQUEUE, run id, call id
act[REQUEUE] = function(run, command)
  local call = get_call(run, command[4])
  if not call then return ENDED end
  if call[C_PHASE] ~= DEAD then return STALE end
  revive(run, command[4], call)
  call[C_GENERATION] = call[C_GENERATION] + 1
  call[C_ATTEMPTS], call[C_LOST] = 0, 0
  enqueue(run, command[4], call)
  conclude(run)
  return DONE
end

-- DROP, run id, call id, dead, reason
act[DROP] = function(run, command)
  local call_id = command[4]
  local call = get_call(run, call_id)
  if not call then return ENDED end
  local is_dead = call[C_PHASE] == DEAD
  if call[C_PHASE] == LEASED or is_dead ~= command[5] then return STALE end
  if is_dead then revive(run, call_id, call) end
  fail(run, call[C_SCOPE], call[C_MEMBER], blame(call_id, call[C_ADDRESS], command[6]))
  remove(run, call_id, call)
  conclude(run)
  return DONE
end

-- CANCEL, run id, reason
act[CANCEL] = function(run, command)
  if header(run)[H_PENDING] == 0 then return ENDED end
  cancel(run, command[4])
  return DONE
end

local function apply(command)
  ended_id = nil
  if command[2] == START then return act[START](nil, command) end
  local kind, run_id = command[2], command[3]
  local run = kind == CLAIM and known(run_id) or kind ~= CLAIM and find(run_id)
  if not run then return ENDED end
  return act[kind](run, command)
end
