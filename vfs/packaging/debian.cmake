# The Debian packages of the components, made by cpack. It adds what dpkg-shlibdeps finds to Depends,
# and has ldconfig run where there is a library.

set(CPACK_GENERATOR DEB)
set(CPACK_CMAKE_GENERATOR Ninja)  # with which cpack packs what is built, and builds nothing itself
set(CPACK_PACKAGE_CONTACT "The groupcommit authors <groupcommit@localhost>")
set(CPACK_PACKAGE_DIRECTORY ${PROJECT_BINARY_DIR}/packages)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE
  GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "")  # each package has its own
set(CPACK_COMPONENTS_ALL)

# debian_package(COMPONENT NAME SECTION SUMMARY DESCRIPTION)
macro(debian_package component name section summary description)
  list(APPEND CPACK_COMPONENTS_ALL ${component})
  string(TOUPPER ${component} upper)
  set(CPACK_DEBIAN_${upper}_PACKAGE_NAME ${name})
  set(CPACK_DEBIAN_${upper}_PACKAGE_SECTION ${section})
  set(CPACK_DEBIAN_${upper}_DESCRIPTION "${summary}\n${description}")
  # Not part of a "make install".
  install(FILES LICENSE DESTINATION share/doc/${name} RENAME copyright
    COMPONENT ${component} EXCLUDE_FROM_ALL)
endmacro()

set(about "\
groupcommit is a SQLite VFS with which the connections of a process that
commit at the same time share one sync of the disk. COMMIT still returns only
once the commit is durable, and the file is an ordinary SQLite database.
.
This package has")

debian_package(library libgroupcommit0 libs "Group commit for SQLite - shared library"
  "${about} the shared library.")
# Which package a program depends on that is linked with the library.
file(WRITE ${PROJECT_BINARY_DIR}/shlibs
  "libgroupcommit 0 libgroupcommit0 (>= ${PROJECT_VERSION})\n")
set(CPACK_DEBIAN_LIBRARY_PACKAGE_CONTROL_EXTRA ${PROJECT_BINARY_DIR}/shlibs)

debian_package(development libgroupcommit-dev libdevel "Group commit for SQLite - development files"
  "${about} the header, the static library, and files for pkg-config and
CMake.")
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS
  "libgroupcommit0 (= ${PROJECT_VERSION}), libsqlite3-dev (>= 3.39.0)")
install(CODE "
  if(CMAKE_INSTALL_DO_STRIP)  # which leaves static libraries alone
    execute_process(COMMAND \"${CMAKE_STRIP}\" --strip-debug --enable-deterministic-archives
      \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_LIBDIR}/libgroupcommit.a\")
  endif()" COMPONENT development)

debian_package(extension libsqlite3-mod-groupcommit libs
  "Group commit for SQLite - loadable extension"
  "${about} the extension, for the sqlite3 shell (.load groupcommit) and for
programs that can load extensions.")
set(CPACK_DEBIAN_EXTENSION_PACKAGE_SUGGESTS sqlite3)

if(TARGET groupcommit-demo)
  debian_package(demo groupcommit-demo database "Group commit for SQLite - demonstration"
    "${about} a tool that measures commits per second with and without group
commit on your disk.")
endif()

include(CPack)
