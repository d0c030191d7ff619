# -DGROUPCOMMIT_MUTATION=NAME builds the library from a copy of vfs/ to which
# tests/mutations/NAME.patch is applied: the library with a fault, for the tests to find. Only for
# tests/mutations/run. The sources themselves know nothing of it.

set(mutated ${PROJECT_BINARY_DIR}/mutated)
file(REMOVE_RECURSE ${mutated}/staging)
file(COPY ${PROJECT_SOURCE_DIR}/vfs DESTINATION ${mutated}/staging)
execute_process(
  COMMAND patch -p1 --no-backup-if-mismatch --fuzz=0 -i
    ${PROJECT_SOURCE_DIR}/tests/mutations/${GROUPCOMMIT_MUTATION}.patch
  WORKING_DIRECTORY ${mutated}/staging
  OUTPUT_VARIABLE output ERROR_VARIABLE output RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "mutation ${GROUPCOMMIT_MUTATION} does not apply to vfs/ any more:\n${output}")
endif()

# Only what differs is touched, so that only that is compiled again.
file(MAKE_DIRECTORY ${mutated}/vfs)
file(GLOB staged LIST_DIRECTORIES false ${mutated}/staging/vfs/*)
execute_process(COMMAND ${CMAKE_COMMAND} -E copy_if_different ${staged} ${mutated}/vfs)
set(GROUPCOMMIT_VFS_DIR ${mutated}/vfs)
list(TRANSFORM GROUPCOMMIT_SOURCES REPLACE "^vfs/" "${mutated}/vfs/")
list(TRANSFORM GROUPCOMMIT_API_SOURCES REPLACE "^vfs/" "${mutated}/vfs/")

install(CODE "message(FATAL_ERROR \"this build has the fault ${GROUPCOMMIT_MUTATION} built in\")")
