"""The POSIX shell scripts that links start on a device. Values reach them as arguments only.

`$1` is the session's folder on the device, except in GUARD; what follows is each script's own.
In the folder, `work` holds the user's files. Beside it lie the guard's mark and, for the command
of number N, its process id, standard output, standard error and exit status (pid.N, out.N, ...).

They avoid backslashes and job control, which are where login shells and small shells differ.
A write that may meet a full disk goes through cat, which says so; a shell's echo need not.
"""

from __future__ import annotations

__all__ = ["ATTACH", "DESCRIBE", "GUARD", "KILL", "PULL", "PUSH", "REMOVE", "RUN"]

# Kill the command and everything it started: it leads a process group of its own where the device
# has setsid.
_KILL = """
for f in "$d"/pid.*; do
  [ -f "$f" ] && p=$(cat "$f") && { kill -s KILL -- "-$p" || kill -s KILL "$p"; } 2>/dev/null
done
"""

# $1 the marker of this session's lines; $2 the virtual environment; $3 the seconds that the
# folder outlives a lost connection; $4 the folder of a connection that was lost, or empty.
# The script ends when the connection does: its standard input is then at its end.
GUARD = f"""
umask 077
LC_ALL=C; export LC_ALL
d=$4
if [ -z "$d" ]; then
  d=$(mktemp -d "${{TMPDIR:-/tmp}}/edgeheads-XXXXXXXX") || exit 1
  mkdir "$d/work" || exit 1
fi
[ -d "$d/work" ] || {{ echo "$1 lost"; exit 1; }}
echo $$ | cat >"$d/guard" || {{ [ -n "$4" ] || rm -rf "$d"; exit 1; }}
v=$2
case $v in "~/"*) v=$HOME/${{v#"~/"}};; esac
echo "$1 folder $d"
echo "$1 venv $v"
[ -x "$v/bin/python" ] && echo "$1 python $v/bin/python"
echo "$1 ready"
trap "" HUP PIPE
cat >/dev/null
[ -d "$d" ] || exit 0
(
  sleep "$3"
  [ "$(cat "$d/guard")" = $$ ] || exit 0
  {_KILL}
  rm -rf "$d"
) </dev/null >/dev/null 2>&1 &
"""

# $2 the name, $3 the size in bytes: a connection that is lost looks like the end of the file.
PUSH = """
cat >"$1/pushed" || { rm -f "$1/pushed"; exit 1; }
if [ "$(wc -c <"$1/pushed")" -ne "$3" ]; then
  rm -f "$1/pushed"; echo "the copy is incomplete" >&2; exit 1
fi
mv -f "$1/pushed" "$1/work/$2"
"""

# $2 the name. The size comes first, on a line of its own.
PULL = """
[ -f "$1/work/$2" ] || { echo absent; exit 1; }
wc -c <"$1/work/$2" && cat "$1/work/$2"
"""

# $2 the number. Wait for the command, and hand on what it wrote.
ATTACH = """
d=$1; n=$2
[ -f "$d/waiter.$n" ] || { echo "edgeheads-not-started" >&2; exit 1; }
while [ ! -s "$d/status.$n" ] && kill -0 "$(cat "$d/waiter.$n")" 2>/dev/null; do sleep 1; done
[ -s "$d/status.$n" ] || { echo "edgeheads-no-status" >&2; exit 1; }
cat "$d/out.$n"; cat "$d/err.$n" >&2
exit "$(cat "$d/status.$n")"
"""

# $2 the number, then the command. It outlives the connection: ATTACH finds it again.
RUN = """
d=$1; n=$2; shift 2
rm -f "$d"/waiter.* "$d"/pid.* "$d"/out.* "$d"/err.* "$d"/status.*
cd "$d/work" || exit 1
command -v "$1" >/dev/null 2>&1 || { echo "edgeheads-no-command" >&2; exit 127; }
s=; command -v setsid >/dev/null 2>&1 && s=setsid
(
  trap "" HUP
  $s "$@" </dev/null >"$d/out.$n" 2>"$d/err.$n" &
  p=$!; echo $p >"$d/pid.$n"
  wait $p; c=$?
  rm -f "$d/pid.$n"
  echo $c >"$d/status"; mv "$d/status" "$d/status.$n"
) </dev/null >/dev/null 2>&1 &
w=$!
echo $w | cat >"$d/waiter.$n" || { kill $w; exit 1; }
wait $w
[ -s "$d/status.$n" ] || { echo "edgeheads-no-status" >&2; exit 1; }
cat "$d/out.$n"; cat "$d/err.$n" >&2
exit "$(cat "$d/status.$n")"
"""

KILL = f"d=$1\n{_KILL}\ntrue"

REMOVE = f'd=$1\n{_KILL}\nrm -rf "$d"'

# What can be told of a device without Python: one "key value" a line.
DESCRIBE = """
echo "system $(uname -s -r -m 2>/dev/null)"
echo "shell_user $(id -un 2>/dev/null)"
echo "free_kb $(df -Pk "$1" 2>/dev/null | tail -n 1 | { read -r a b c f e; echo "$f"; })"
[ -r /proc/meminfo ] && while read -r k v u; do
  case $k in MemTotal:) echo "memory_kb $v";; MemAvailable:) echo "memory_available_kb $v";; esac
done </proc/meminfo
for f in /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor; do
  [ -r "$f" ] && echo "governor $(cat "$f")"
done
for f in /sys/class/thermal/thermal_zone*/temp; do
  [ -r "$f" ] && echo "temperature_millicelsius $(cat "$f" 2>/dev/null)"
done
command -v vcgencmd >/dev/null 2>&1 && echo "throttled $(vcgencmd get_throttled 2>/dev/null)"
for f in /usr/lib/*/libedgetpu.so.1 /usr/lib/libedgetpu.so.1; do
  [ -e "$f" ] && echo "edgetpu $f"
done
true
"""
