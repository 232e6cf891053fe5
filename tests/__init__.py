"""The tests of newapi_proxy: laws, modules, the process itself."""
