include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# serrate::serrate is all of the library.
add_library(serrate INTERFACE)
add_library(serrate::serrate ALIAS serrate)
get_property(serrate_libraries GLOBAL PROPERTY SERRATE_LIBRARIES)
target_link_libraries(serrate INTERFACE ${serrate_libraries})

install(TARGETS serrate ${serrate_libraries} EXPORT serrate
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET serrate_command)
  install(TARGETS serrate_command RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/serrate DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT serrate NAMESPACE serrate:: FILE serrateTargets.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/serrate)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/serrateConfig.cmake.in
  ${PROJECT_BINARY_DIR}/serrateConfig.cmake INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/serrate)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/serrateConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/serrateConfig.cmake ${PROJECT_BINARY_DIR}/serrateConfigVersion.cmake
  ${PROJECT_SOURCE_DIR}/cmake/FindNCCL.cmake ${PROJECT_SOURCE_DIR}/cmake/FindxxHash.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/serrate)
