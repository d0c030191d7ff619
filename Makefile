# The front door. CMake does the work, in build/; see "make help".

PREFIX ?= /usr/local
JOBS ?= $(shell nproc)
DEMO_ARGS ?=
BENCH_ARGS ?=

.PHONY: all demo test check model fuzz torture mutations sqlite-tests bench install package format clean help
.NOTPARALLEL:
# "make -j" is for this file only; below it, JOBS says how many jobs there are.
unexport MAKEFLAGS

# A build directory keeps the generator and the options that it began with, so "make" after "make
# test" does not drop the tests. The shell asks, since "make clean all" changes the answer midway.
ninja := $(if $(shell command -v ninja),-G Ninja)
first := test -f build/CMakeCache.txt || echo $(ninja) -DGROUPCOMMIT_TESTS=OFF
configure := cmake --log-level=WARNING -S . -B build $$($(first))
build := cmake --build build -j $(JOBS)
# What is installed, and what it is called in build/.
products := groupcommit groupcommit_shared groupcommit_extension groupcommit-demo
files := build/libgroupcommit.a build/libgroupcommit.so build/groupcommit.so build/groupcommit-demo

all:
	@.ci/deps --no-install build
	@$(configure)
	@$(build) --target $(products) examples

demo:
	@.ci/deps demo
	@$(configure)
	@$(build) --target groupcommit-demo
	build/groupcommit-demo $(DEMO_ARGS)

test:
	@.ci/deps test
	@$(configure) -DGROUPCOMMIT_TESTS=ON
	@$(build)
	@cd build && ctest --output-on-failure -j4

check:
	@.ci/deps check
	@JOBS=$(JOBS) .ci/check

model:
	@.ci/deps model
	tests/model/run

fuzz:
	@.ci/deps fuzz
	JOBS=$(JOBS) tests/fuzz/run

torture:
	@.ci/deps test
	@$(configure) -DGROUPCOMMIT_TESTS=ON
	@$(build) --target torture
	build/tests/torture --seconds $(or $(SECONDS),60) --dir build $(if $(SEED),--seed $(SEED))

mutations:
	@.ci/deps mutations
	JOBS=$(JOBS) tests/mutations/run

sqlite-tests:
	@.ci/deps sqlite-tests
	JOBS=$(JOBS) tests/sqlite/run

bench:
	@.ci/deps bench
	@$(configure) -DGROUPCOMMIT_BENCH=ON
	@$(build) --target commit_bench micro_bench pipeline_bench
	bench/run build/bench $(BENCH_ARGS)

# Installs what is built, and builds only if something is missing: "sudo make install" leaves no files
# of root in build/.
install:
	@ls $(files) >/dev/null 2>&1 || { .ci/deps --no-install build && $(configure) && \
	  $(build) --target $(products); }
	@DESTDIR="$(DESTDIR)" cmake --install build --prefix "$(PREFIX)"
	@test -n "$(DESTDIR)" || test "$$(id -u)" -ne 0 || PATH="$$PATH:/sbin:/usr/sbin" ldconfig
	@sed -n 's,\(.*\)/groupcommit\.so$$,\nIn the sqlite3 shell:  .load \1/groupcommit,p' build/install_manifest.txt
	@rm -f build/install_manifest.txt

package:
	@.ci/deps package
	@$(configure)
	@$(build) --target $(products)
	@umask 022; cpack --config build/CPackConfig.cmake  # it makes the directories with what the umask leaves

format:
	find vfs tests bench examples -name '*.h' -o -name '*.cc' -o -name '*.c' -o -name '*.cpp' | \
	  xargs clang-format -i

clean:
	rm -rf build build-*

help:
	@echo "make           in build/: groupcommit.so (extension), libgroupcommit.{a,so}, the demo, the examples"
	@echo "make demo      shows group commit beside stock SQLite; DEMO_ARGS=\"--connections 1,8 --seconds 1\""
	@echo "make test      builds and runs all tests"
	@echo "make check     format, warnings, clang-tidy, the tests under sanitizers; CI also: model fuzz mutations"
	@echo "make model     checks the protocol exhaustively, with spin"
	@echo "make fuzz      runs the fuzz targets; SECONDS=600 tests/fuzz/run wal for longer"
	@echo "make torture   the crash laboratory for SECONDS=60, from SEED on; stops at the first failure"
	@echo "make mutations builds faults into the library; the tests have to find each of them"
	@echo "make sqlite-tests   SQLite's own tests of the WAL and of locks, over groupcommit; gets its source"
	@echo "make bench     runs the benchmarks, prints tables, draws bench/plots/*.svg; see bench/README.md"
	@echo "make install   libraries, header, extension and demo, to PREFIX ($(PREFIX)); DESTDIR"
	@echo "make package   Debian packages of them, in build/packages/"
	@echo "make format    applies .clang-format"
	@echo "make clean     removes build/ and build-*/"
	@echo
	@echo "All but make, install, format and clean install missing Debian packages if they may (root, or"
	@echo "sudo without a password); if not, they say what is missing. JOBS=$(JOBS) compilers at a time."
