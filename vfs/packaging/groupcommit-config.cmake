# find_package(groupcommit) gives these targets:
#
#   groupcommit::groupcommit         the shared library
#   groupcommit::groupcommit_static  the static one
include(CMakeFindDependencyMacro)
find_dependency(SQLite3 3.39)
find_dependency(Threads)
include(${CMAKE_CURRENT_LIST_DIR}/groupcommit-targets.cmake)

# The static library is written in C++. A project without that language links with a C compiler.
get_property(languages GLOBAL PROPERTY ENABLED_LANGUAGES)
if(NOT "CXX" IN_LIST languages)
  set_property(TARGET groupcommit::groupcommit_static APPEND PROPERTY
    INTERFACE_LINK_LIBRARIES stdc++ m)
endif()
