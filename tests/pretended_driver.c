/* An NVIDIA driver as far as it is asked before anything is executed; what it says comes from the environment. */

#include <stdlib.h>
#include <stdio.h>

static int number(const char *name, int otherwise) {
    const char *value = getenv(name);
    return value ? atoi(value) : otherwise;
}

int cuInit(unsigned flags) { return number("PRETENDED_INIT", 0); }

int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }

int cuDeviceGetName(char *name, int length, int device) {
    const char *value = getenv("PRETENDED_NAME");
    snprintf(name, length, "%s", value ? value : "NVIDIA L4");
    return 0;
}

int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)24 << 30; return 0; }

int cuDriverGetVersion(int *version) { *version = number("PRETENDED_CUDA", 13000); return 0; }

int cuDeviceGetAttribute(int *value, int which, int device) {
    *value = which == 75 ? number("PRETENDED_MAJOR", 8) : number("PRETENDED_MINOR", 9);
    return 0;
}

int cuGetErrorName(int error, const char **name) {
    *name = error == 100 ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH";
    return 0;
}
