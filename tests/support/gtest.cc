// Nothing but the header that this is compiled with (tests/CMakeLists.txt).
