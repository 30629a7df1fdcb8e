/*
 * A stub of libnvidia-ml.so.1.
 *
 *   STUB_NVML_GPUS     number of GPUs (1)
 *   STUB_NVML_INIT     what nvmlInitWithFlags returns (0)
 *   STUB_NVML_TROUBLE  hang, abort, exit or talk, at
 *   STUB_NVML_AT       load, init, name or memory, while there is the file
 *   STUB_NVML_WHILE    (if it is set); what hangs makes the file
 *   STUB_NVML_SIGN
 *   STUB_NVML_MEMORY   what nvmlDeviceGetMemoryInfo returns (0)
 *   STUB_NVML_TOTAL, STUB_NVML_FREE   bytes
 *   STUB_NVML_FREE_IN  a file with the free bytes
 *   STUB_NVML_LOST_IN  a file with the number of the first GPU that is lost; all but GPU 0 stay
 *                      so until the next init
 *   STUB_NVML_NAME     latin1, control, empty, long
 *   STUB_NVML_FORBIDDEN  number of the GPU that must not be opened
 *   STUB_NVML_MIG      number of MIG instances of GPU 0; it is in MIG mode when this is set
 *
 * With -DBARE it lacks what old drivers lack, with -DOLD the third version of the process lists.
 */
#include "stub.h"

enum { OK = 0, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, TOO_SMALL = 7, LOST = 15 };

#define GIB (1ULL << 30)

struct gpu {
	unsigned index;
	int instance; /* -1 for a whole GPU */
};
struct memory {
	unsigned long long total, free, used;
};
struct pci {
	char legacy[16];
	unsigned domain, bus, device, id, subsystem;
	char bus_id[32];
};
struct process {
	unsigned pid;
	unsigned long long used;
	unsigned gpu_instance, compute_instance;
};

static struct gpu gpus[64];
static int lost;

__attribute__((constructor)) static void load(void)
{
	trouble("STUB_NVML", "load");
}

static void at(const char *place)
{
	trouble("STUB_NVML", place);
}

int nvmlInitWithFlags(unsigned flags)
{
	(void)flags;
	at("init");
	lost = 0;
	return (int)number("STUB_NVML_INIT", OK);
}

int nvmlShutdown(void)
{
	return OK;
}

const char *nvmlErrorString(int code)
{
	(void)code;
	return "an error of the stub";
}

int nvmlSystemGetDriverVersion(char *text, unsigned size)
{
	snprintf(text, size, "570.133.07");
	return OK;
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
	*count = (unsigned)number("STUB_NVML_GPUS", 1);
	return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct gpu **gpu)
{
	if (index == number("STUB_NVML_FORBIDDEN", 999))
		return NO_PERMISSION;
	gpus[index].index = index;
	gpus[index].instance = -1;
	*gpu = &gpus[index];
	return OK;
}

int nvmlDeviceGetName(struct gpu *gpu, char *text, unsigned size)
{
	at("name");
	if (is("STUB_NVML_NAME", "latin1"))
		snprintf(text, size, "Stub \xb5 4090");
	else if (is("STUB_NVML_NAME", "control"))
		snprintf(text, size, "Stub\n\x1b[31m\t4090");
	else if (is("STUB_NVML_NAME", "empty"))
		snprintf(text, size, "%s", "");
	else if (is("STUB_NVML_NAME", "long"))
		/* Not even terminated. */
		memset(text, 'x', size);
	else if (gpu->instance >= 0)
		snprintf(text, size, "Stub RTX 4090 MIG 1g.5gb");
	else
		snprintf(text, size, "Stub RTX 4090");
	return OK;
}

int nvmlDeviceGetPciInfo_v3(struct gpu *gpu, struct pci *pci)
{
	memset(pci, 0, sizeof *pci);
	snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", 10 + gpu->index);
	return OK;
}

int nvmlDeviceGetMemoryInfo(struct gpu *gpu, struct memory *memory)
{
	unsigned long long total = number("STUB_NVML_TOTAL", gpu->instance < 0 ? 24 * GIB : 5 * GIB);

	at("memory");
	if (gpu->index >= number_in_file("STUB_NVML_LOST_IN", 999))
		lost = 1;
	if (lost && gpu->index > 0)
		return LOST;
	memory->total = total;
	memory->free = number_in_file("STUB_NVML_FREE_IN", number("STUB_NVML_FREE", total - GIB));
	memory->used = total - memory->free;
	return (int)number("STUB_NVML_MEMORY", OK);
}

#ifndef BARE

int nvmlSystemGetCudaDriverVersion_v2(int *version)
{
	*version = 12080;
	return OK;
}

int nvmlDeviceGetUUID(struct gpu *gpu, char *text, unsigned size)
{
	snprintf(text, size, "%s-%08x-0000-0000-0000-0000000000%02x", gpu->instance < 0 ? "GPU" : "MIG",
		 gpu->index, (unsigned)(gpu->instance + 1));
	return OK;
}

int nvmlDeviceGetCudaComputeCapability(struct gpu *gpu, int *major, int *minor)
{
	(void)gpu;
	*major = 8;
	*minor = 9;
	return OK;
}

static struct gpu instances[8];

int nvmlDeviceGetMigMode(struct gpu *gpu, unsigned *now, unsigned *next)
{
	if (!*told("STUB_NVML_MIG"))
		return NOT_SUPPORTED;
	*now = *next = gpu->index == 0;
	return OK;
}

int nvmlDeviceGetMaxMigDeviceCount(struct gpu *gpu, unsigned *count)
{
	(void)gpu;
	*count = 7;
	return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(struct gpu *gpu, unsigned index, struct gpu **instance)
{
	/* The first place is empty. */
	if (index == 0 || index > number("STUB_NVML_MIG", 0))
		return NOT_FOUND;
	instances[index].index = gpu->index;
	instances[index].instance = (int)index;
	*instance = &instances[index];
	return OK;
}

static int list(unsigned *count, struct process *processes, const struct process *all, unsigned n)
{
	if (!processes || *count < n) {
		*count = n;
		return TOO_SMALL;
	}
	*count = n;
	memcpy(processes, all, n * sizeof *all);
	return OK;
}

static int compute(struct gpu *gpu, unsigned *count, struct process *processes)
{
	/* The second is of another container: its figure is not told. */
	const struct process all[] = {{4242, GIB, ~0u, ~0u}, {4243, ~0ULL, ~0u, ~0u}};

	(void)gpu;
	return list(count, processes, all, 2);
}

#ifndef OLD

int nvmlDeviceGetComputeRunningProcesses_v3(struct gpu *gpu, unsigned *count,
					    struct process *processes)
{
	return compute(gpu, count, processes);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(struct gpu *gpu, unsigned *count,
					     struct process *processes)
{
	const struct process all[] = {{4242, GIB, ~0u, ~0u}, {5000, 64 << 20, ~0u, ~0u}};

	(void)gpu;
	return list(count, processes, all, 2);
}

#else

int nvmlDeviceGetComputeRunningProcesses_v2(struct gpu *gpu, unsigned *count,
					    struct process *processes)
{
	return compute(gpu, count, processes);
}

#endif
#endif
