#include "app.c"  // which is C++ as well
