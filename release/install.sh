#!/bin/sh
# Installs inspectd from the wheels beside this file, without internet: sudo ./install.sh --help
set -eu

usage() {
    cat <<END
usage: install.sh [--prefix DIR] [--with EXTRA,...] [--python COMMAND]

Installs inspectd into an environment of its own, from the wheels beside this
file and without internet. A version that is installed there already goes on
running until its lines are restarted, and is kept to go back to.

  --prefix DIR       where to (default: /opt/inspectd)
  --with EXTRA,...   build: build-engine and calibrate work here, too
                     signed: engines' signatures can be checked
                     dashboard, plant: inspectd-dashboard, inspectd-plant work
  --python COMMAND   the Python to run with (default: the first fitting one of
                     python3, python3.12, python3.11)
END
}

refuse() {
    echo "install.sh: $1" >&2
    exit 2
}

here=$(cd "$(dirname "$0")" && pwd)
prefix=/opt/inspectd with='' python=''
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage && exit 0 ;;
        --prefix | --with | --python)
            [ $# -gt 1 ] || refuse "$1: found nothing after it, expected a value"
            case $1 in
                --prefix) prefix=${2%/} ;;
                --with) with=$2 ;;
                --python) python=$2 ;;
            esac
            shift 2
            ;;
        *) refuse "$1: is not an option; --help shows them" ;;
    esac
done

case $prefix in
    /*) ;;
    *) refuse "--prefix: found '$prefix', expected an absolute path" ;;
esac
for extra in $(echo "$with" | tr , ' '); do
    case $extra in
        build | signed | dashboard | plant) ;;
        *) refuse "--with: found '$extra', expected some of build, signed, dashboard and plant with commas between" ;;
    esac
done
[ "$(uname -sm)" = "Linux x86_64" ] || refuse "this is $(uname -sm); the wheels here are for Linux x86_64"

# The wheels' own names say which Pythons there are wheels for.
minors=$(ls "$here/wheels" | sed -n 's/.*-cp3\([0-9]*\)-cp3\1-.*/\1/p' | sort -un | tr '\n' ' ')
minor_of() {
    "$1" -c 'import sys, venv; print(sys.version_info.minor)' 2>/dev/null
}
found=''
for candidate in ${python:-python3 python3.12 python3.11}; do
    minor=$(minor_of "$candidate") || continue
    case " $minors" in
        *" $minor "*) found=$candidate && break ;;
    esac
done
[ -n "$found" ] || refuse "${python:-python3}: found $("${python:-python3}" --version 2>/dev/null || echo none),\
 expected Python 3.$(echo "$minors" | sed 's/ $//; s/ / or 3./g')"

for name in bin lib pyvenv.cfg; do
    if [ -e "$prefix/$name" ] && [ ! -L "$prefix/$name" ]; then
        refuse "$prefix: is an environment that was made by hand; expected none, or one of this installer;\
 move it away: mv $prefix $prefix.old"
    fi
done
mkdir -p "$prefix" 2>/dev/null && [ -w "$prefix" ] || refuse "$prefix: cannot be written; run as root, such as with sudo"

version=$(ls "$here/wheels" | sed -n 's/^inspectd-\([^-]*\)-py3-none-any\.whl$/\1/p')
before=$(readlink "$prefix/current" || true)
umask 022
new=$(mktemp -d "$prefix/$version-XXXXXX")
chmod 0755 "$new"
trap 'rm -rf "$new"' EXIT
trap 'exit 130' INT TERM HUP

# What this shell says about Python is about another one.
unset PYTHONPATH PYTHONHOME PYTHONUSERBASE VIRTUAL_ENV
echo "inspectd $version for Python 3.$minor: installing into $new (about a minute)"
"$found" -m venv --without-pip "$new"
"$new/bin/python" "$(ls "$here"/wheels/pip-*.whl)/pip" --isolated --quiet --no-input --disable-pip-version-check \
    install --no-index --find-links "$here/wheels" --no-cache-dir --no-compile --root-user-action=ignore \
    pip "inspectd${with:+[$with]}==$version"
echo "compiling"
# Now, as the service may not write here. Some packages carry files that no Python of today compiles.
"$new/bin/python" -m compileall -qq -j 0 "$new/lib" || true
"$new/bin/inspectd" --version

trap '' INT TERM HUP
ln -s "$(basename "$new")" "$new.link"
mv -T "$new.link" "$prefix/current"
trap - EXIT
# So that /opt/inspectd/bin/python is a Python of this environment, too.
for name in bin lib pyvenv.cfg; do
    [ -L "$prefix/$name" ] || ln -s "current/$name" "$prefix/$name"
done
for folder in "$prefix"/[0-9]*-??????; do
    case $folder in
        "$new" | "$prefix/$before") ;;
        *) rm -rf "$folder" ;;
    esac
done
echo "the commands are in $prefix/bin"

if [ -n "$before" ] && [ -d "$prefix/$before" ]; then
    installed() {
        ls "$1"/lib/python3.*/site-packages | sed -n 's/\(.*\)-[^-]*\.dist-info$/\1/p' | sort
    }
    installed "$new" >"$new/.packages"
    lost=$(installed "$prefix/$before" | comm -23 - "$new/.packages" | tr '\n' ' ')
    rm "$new/.packages"
    if [ -n "$lost" ]; then
        echo "install.sh: warning: the version before had packages that this one has not: ${lost% }" >&2
    fi
    echo "the version before is kept; to go back to it: ln -sfn $before $prefix/current"
fi
