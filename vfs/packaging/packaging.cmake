# What "make install" installs and "make package" packs, in four components: a Debian package each.
#
#   library      libgroupcommit.so.0                    libgroupcommit0
#   development  the header, libgroupcommit.{a,so},     libgroupcommit-dev
#                pkg-config and CMake files
#   extension    groupcommit.so                         libsqlite3-mod-groupcommit
#   demo         groupcommit-demo and its man page      groupcommit-demo

set(packaging ${CMAKE_CURRENT_LIST_DIR})

# ---- The shared library ----

# It exports the functions of groupcommit.h and nothing else. In the static one they are hidden, so
# what defines them is compiled again; all other objects serve both.
add_library(groupcommit_shared SHARED ${GROUPCOMMIT_API_SOURCES} $<TARGET_OBJECTS:groupcommit_objects>)
target_compile_definitions(groupcommit_shared PRIVATE SQLITE_CORE)
target_include_directories(groupcommit_shared PUBLIC $<BUILD_INTERFACE:${GROUPCOMMIT_VFS_DIR}>)
target_link_libraries(groupcommit_shared PUBLIC SQLite::SQLite3 PRIVATE Threads::Threads)
target_link_options(groupcommit_shared PRIVATE
  -Wl,--version-script=${packaging}/exports.map -Wl,--no-undefined)
set_target_properties(groupcommit_shared PROPERTIES
  OUTPUT_NAME groupcommit VERSION ${PROJECT_VERSION} SOVERSION 0
  LINK_DEPENDS ${packaging}/exports.map)

# ---- Install ----

# Debian's loader, pkg-config and CMake look into lib/TRIPLET below /usr/local as well as below /usr,
# so that the packages can be made of the same build.
if(CMAKE_LIBRARY_ARCHITECTURE AND EXISTS /etc/debian_version)
  set(CMAKE_INSTALL_LIBDIR lib/${CMAKE_LIBRARY_ARCHITECTURE} CACHE PATH "Libraries")
endif()
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS groupcommit_shared groupcommit EXPORT groupcommit
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
    COMPONENT library NAMELINK_COMPONENT development
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development
  PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS groupcommit_extension
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT extension)
if(TARGET groupcommit-demo)
  install(TARGETS groupcommit-demo DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT demo)
  install(FILES bench/groupcommit-demo.1
    DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT demo)
endif()

# find_package(groupcommit): the targets groupcommit::groupcommit and groupcommit::groupcommit_static.
set_target_properties(groupcommit_shared PROPERTIES EXPORT_NAME groupcommit)
set_target_properties(groupcommit PROPERTIES EXPORT_NAME groupcommit_static)
set(cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/groupcommit)
install(EXPORT groupcommit NAMESPACE groupcommit:: FILE groupcommit-targets.cmake
  DESTINATION ${cmake_dir} COMPONENT development)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/groupcommit-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${packaging}/groupcommit-config.cmake
    ${PROJECT_BINARY_DIR}/groupcommit-config-version.cmake
  DESTINATION ${cmake_dir} COMPONENT development)

# pkg-config: from its own place to the prefix, as that is chosen only when it is installed.
string(REGEX REPLACE "[^/]+" ".." to_prefix ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
configure_file(${packaging}/groupcommit.pc.in ${PROJECT_BINARY_DIR}/groupcommit.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/groupcommit.pc
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)

if(CMAKE_SOURCE_DIR STREQUAL PROJECT_SOURCE_DIR)  # not as a part of another project
  include(${packaging}/debian.cmake)
endif()
