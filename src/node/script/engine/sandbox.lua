-- The parts of the sandbox that have to be Lua: whatever can catch an error passes it through `plain` or `kept` first (see raise.rs),
-- and whatever a script may not change is an empty table in front of the real one, which `behind` knows (see sandbox.rs).
local behind, fail, refuse, rethrow, plain, kept, stopped, halt, loadstring = ...
local pcall, xpcall, type, load = pcall, xpcall, type, load
local next, pairs, rawget, rawset = next, pairs, rawget, rawset
local byte, compiled_mark = string.byte, 27
local create, resume, yield = coroutine.create, coroutine.resume, coroutine.yield
local M = { coroutine = {} }

local function outcome(ok, ...)
  if ok then return true, ... end
  return false, plain((...))
end

function M.pcall(...)
  return outcome(pcall(...))
end

-- An error that ends the run is raised inside the hook, where hooks are off: a handler that loops could never be ended.
function M.xpcall(f, handler)
  return xpcall(f, function(e)
    if stopped() then return e end
    return handler(kept(e))
  end)
end

function M.next(t, k)
  if type(t) ~= "table" then fail(1, "table", t) end
  return next(behind[t] or t, k)
end

function M.pairs(t)
  if type(t) ~= "table" then fail(1, "table", t) end
  if behind[t] then return M.next, t, nil end
  return next, t, nil
end

function M.rawget(t, k)
  if type(t) ~= "table" then fail(1, "table", t) end
  return rawget(behind[t] or t, k)
end

function M.rawset(t, k, v)
  if type(t) ~= "table" then fail(1, "table", t) end
  if behind[t] then refuse() end
  return rawset(t, k, v)
end

-- A coroutine has a C stack of its own in Lua's books, but not in the machine's: nesting is bounded here. It also begins to count
-- instructions anew, so that many short ones could pass the meter by: `halt` counts them, and ends each once the run is to end.
local depth, deepest = 0, 16

local function resumed(ok, ...)
  depth = depth - 1
  if ok then return true, ... end
  return false, kept((...))
end

local function wrapped(ok, ...)
  depth = depth - 1
  if ok then return ... end
  rethrow((...))
end

function M.coroutine.create(f)
  if type(f) ~= "function" then fail(1, "Lua function expected") end
  return create(f)
end

function M.coroutine.resume(co, ...)
  if type(co) ~= "thread" then fail(1, "coroutine expected") end
  halt()
  if depth >= deepest then return false, "C stack overflow" end
  depth = depth + 1
  return resumed(resume(co, ...))
end

function M.coroutine.wrap(f)
  if type(f) ~= "function" then fail(1, "Lua function expected") end
  local co = create(f)
  return function(...)
    halt()
    if depth >= deepest then rethrow("C stack overflow") end
    depth = depth + 1
    return wrapped(resume(co, ...))
  end
end

-- Compiled code is refused, by `loadstring` in the words of Redis.
function M.load(f, name)
  if type(f) ~= "function" then fail(1, "function", f) end
  local started, compiled
  local function reader()
    local piece = f()
    if not started and piece ~= "" then
      started = true
      compiled = type(piece) == "string" and byte(piece) == compiled_mark
    end
    if not compiled then return piece end
  end
  name = name or "=(load)"
  local chunk, problem = load(reader, name)
  if compiled then return loadstring("\27", name) end
  if chunk then return chunk end
  return nil, kept(problem)
end

-- The body of a coroutine that does one piece of work each time it is resumed: see `Desk::aside`.
function M.worker(work)
  return function()
    while true do
      work()
      yield()
    end
  end
end

-- Runs a function of the script's under a handler for what it does not catch itself.
function M.run(handler, f, keys, args)
  depth = 0
  return xpcall(function() return f(keys, args) end, handler)
end

-- The same for the body of an EVAL, which takes no arguments.
function M.run_script(handler, f)
  depth = 0
  return xpcall(f, handler)
end

-- What Rust needs of Lua's own operators.
M.raw_pcall = pcall
function M.get(t, k) return t[k] end
function M.less(a, b) return a < b end

return M
