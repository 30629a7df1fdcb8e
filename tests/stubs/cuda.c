/*
 * A stub of libcuda.so.1.
 *
 *   STUB_CUDA_GPUS        number of GPUs (1); as always, no more than CUDA_VISIBLE_DEVICES has words
 *   STUB_CUDA_INIT        what cuInit returns (0)
 *   STUB_CUDA_INTEGRATED  1 for a GPU that shares the system's memory
 *   STUB_CUDA_ORDER       reversed: not in PCI order, as CUDA's own order may be
 *   STUB_CUDA_TROUBLE, STUB_CUDA_AT   as in nvml.c; at load or init
 */
#include "stub.h"

enum { OK = 0, INVALID_DEVICE = 101 };

__attribute__((constructor)) static void load(void)
{
	trouble("STUB_CUDA", "load");
}

static int count(void)
{
	int all = (int)number("STUB_CUDA_GPUS", 1);
	int words = 1;

	for (const char *c = told("CUDA_VISIBLE_DEVICES"); *c; c++)
		words += *c == ',';
	return getenv("CUDA_VISIBLE_DEVICES") && words < all ? words : all;
}

static int place(int device)
{
	return is("STUB_CUDA_ORDER", "reversed") ? count() - 1 - device : device;
}

int cuInit(unsigned flags)
{
	(void)flags;
	trouble("STUB_CUDA", "init");
	return (int)number("STUB_CUDA_INIT", OK);
}

int cuDriverGetVersion(int *version)
{
	*version = 12080;
	return OK;
}

int cuDeviceGetCount(int *number_of)
{
	*number_of = count();
	return OK;
}

int cuDeviceGet(int *device, int ordinal)
{
	if (ordinal >= count())
		return INVALID_DEVICE;
	*device = ordinal;
	return OK;
}

int cuDeviceGetName(char *text, int size, int device)
{
	snprintf(text, (size_t)size, "Stub CUDA GPU %d", place(device));
	return OK;
}

int cuDeviceGetUuid_v2(unsigned char *uuid, int device)
{
	memset(uuid, 0, 16);
	uuid[3] = (unsigned char)place(device);
	return OK;
}

int cuDeviceGetPCIBusId(char *text, int size, int device)
{
	snprintf(text, (size_t)size, "0000:%02X:00.0", 10 + place(device));
	return OK;
}

int cuDeviceTotalMem_v2(size_t *bytes, int device)
{
	(void)device;
	*bytes = (size_t)24 << 30;
	return OK;
}

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
	(void)device;
	switch (attribute) {
	case 18:
		*value = (int)number("STUB_CUDA_INTEGRATED", 0);
		return OK;
	case 75:
		*value = 8;
		return OK;
	case 76:
		*value = 9;
		return OK;
	}
	return 1;
}
