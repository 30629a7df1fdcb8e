/*
 * A stub of AMD's management libraries: librocm_smi64.so and its successor, libamd_smi.so.
 *
 *   STUB_AMD_GPUS    number of GPUs (1)
 *   STUB_AMD_INIT    what the call that begins returns (0)
 *   STUB_AMD_TOTAL, STUB_AMD_USED   bytes; STUB_AMD_USED_IN a file with the latter
 *   STUB_AMD_NAME    latin1
 *   STUB_AMD_TROUBLE, STUB_AMD_AT   as in nvml.c; at load, init or memory
 */
#include "stub.h"

#include <stdint.h>

enum { OK = 0, INVALID = 1 };

__attribute__((constructor)) static void load(void)
{
	trouble("STUB_AMD", "load");
}

static int init(void)
{
	trouble("STUB_AMD", "init");
	return (int)number("STUB_AMD_INIT", OK);
}

static uint32_t count(void)
{
	return (uint32_t)number("STUB_AMD_GPUS", 1);
}

static const char *name(void)
{
	return is("STUB_AMD_NAME", "latin1") ? "Stub \xb5 7900" : "Stub Radeon RX 7900";
}

static int total(uint64_t *bytes)
{
	trouble("STUB_AMD", "memory");
	*bytes = number("STUB_AMD_TOTAL", 24ULL << 30);
	return OK;
}

static int used(uint64_t *bytes)
{
	*bytes = number_in_file("STUB_AMD_USED_IN", number("STUB_AMD_USED", 1ULL << 30));
	return OK;
}

/* ROCm SMI: devices by number. */

int rsmi_init(uint64_t flags)
{
	(void)flags;
	return init();
}

int rsmi_shut_down(void)
{
	return OK;
}

int rsmi_num_monitor_devices(uint32_t *number_of)
{
	*number_of = count();
	return OK;
}

int rsmi_dev_name_get(uint32_t device, char *text, size_t size)
{
	(void)device;
	snprintf(text, size, "%s", name());
	return OK;
}

int rsmi_dev_memory_total_get(uint32_t device, int kind, uint64_t *bytes)
{
	(void)device;
	return kind == 0 ? total(bytes) : INVALID;
}

int rsmi_dev_memory_usage_get(uint32_t device, int kind, uint64_t *bytes)
{
	(void)device;
	return kind == 0 ? used(bytes) : INVALID;
}

int rsmi_dev_pci_id_get(uint32_t device, uint64_t *id)
{
	*id = (uint64_t)(3 + device) << 8;
	return OK;
}

int rsmi_status_string(int status, const char **text)
{
	(void)status;
	*text = "a status of the stub";
	return OK;
}

/* AMD SMI: devices by handle. Handles are small, for callers that cut them to 32 bits. */

struct asic {
	char market_name[256];
	uint32_t vendor_id;
	char vendor_name[256];
	uint32_t subvendor_id;
	uint64_t device_id;
	uint32_t rev_id;
	char asic_serial[256];
	uint32_t oam_id, compute_units;
	uint64_t target_graphics_version;
	uint32_t subsystem_id;
	uint32_t reserved[21];
};

int amdsmi_init(uint64_t flags)
{
	(void)flags;
	return init();
}

int amdsmi_shut_down(void)
{
	return OK;
}

int amdsmi_get_processor_handles_by_type(int type, void **handles, uint32_t *number_of)
{
	(void)type;
	for (uint32_t i = 0; handles && i < count(); i++)
		handles[i] = (void *)(uintptr_t)(i + 1);
	*number_of = count();
	return OK;
}

int amdsmi_get_gpu_asic_info(void *gpu, struct asic *asic)
{
	(void)gpu;
	memset(asic, 0, sizeof *asic);
	snprintf(asic->market_name, sizeof asic->market_name, "%s", name());
	asic->vendor_id = 0x1002;
	return OK;
}

int amdsmi_get_gpu_memory_total(void *gpu, int kind, uint64_t *bytes)
{
	(void)gpu;
	return kind == 0 ? total(bytes) : INVALID;
}

int amdsmi_get_gpu_memory_usage(void *gpu, int kind, uint64_t *bytes)
{
	(void)gpu;
	return kind == 0 ? used(bytes) : INVALID;
}

int amdsmi_get_gpu_device_bdf(void *gpu, uint64_t *id)
{
	/* Function in 3 bits, device in 5, bus in 8, domain in the rest. */
	*id = ((uint64_t)(uintptr_t)gpu + 2) << 8;
	return OK;
}

int amdsmi_status_code_to_string(int status, const char **text)
{
	(void)status;
	*text = "a status of the stub";
	return OK;
}
