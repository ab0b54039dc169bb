/* The part of NVIDIA's management library that the server calls, for simulated GPUs: each line of the file SIMULATED_GPUS
   is one GPU: memory total and free in MiB, utilisation in %, temperature, milliwatts, ECC errors, Xid error or 0, name. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, NOT_FOUND = 6, NOT_SUPPORTED = 3, TIMEOUT = 10, MAX_GPUS = 16, XID = 8 };

typedef struct { unsigned long long total, free; unsigned utilisation, temperature, power; unsigned long long ecc, xid; char name[64]; } Gpu;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilisation;
typedef struct { void *device; unsigned long long type, data; unsigned gpu_instance, compute_instance; } Event;

static Gpu gpus[MAX_GPUS];
static unsigned long long reported[MAX_GPUS];

static unsigned read_gpus(void) {
  FILE *file = fopen(getenv("SIMULATED_GPUS") ? getenv("SIMULATED_GPUS") : "", "r");
  unsigned count = 0;
  while (file && count < MAX_GPUS) {
    Gpu *gpu = &gpus[count];
    if (fscanf(file, "%llu %llu %u %u %u %llu %llu %63[^\n]", &gpu->total, &gpu->free, &gpu->utilisation, &gpu->temperature,
               &gpu->power, &gpu->ecc, &gpu->xid, gpu->name) != 8) break;
    count++;
  }
  if (file) fclose(file);
  return count;
}

static unsigned index_of(void *device) { return (unsigned)(unsigned long)device - 1; }

static Gpu *now(void *device) { return index_of(device) < read_gpus() ? &gpus[index_of(device)] : NULL; }

int nvmlInit_v2(void) { return OK; }
int nvmlInitWithFlags(unsigned flags) { (void)flags; return OK; }
const char *nvmlErrorString(int code) { (void)code; return "simulated"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = read_gpus(); return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(unsigned long)(index + 1); return OK; }
int nvmlDeviceGetIndex(void *device, unsigned *index) { *index = index_of(device); return OK; }
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned size) { snprintf(uuid, size, "GPU-made-up-%u", index_of(device)); return OK; }

int nvmlDeviceGetName(void *device, char *name, unsigned size) {
  Gpu *gpu = now(device);
  if (!gpu) return NOT_FOUND;
  snprintf(name, size, "%s", gpu->name);
  return OK;
}

int nvmlDeviceGetMemoryInfo(void *device, Memory *memory) {
  Gpu *gpu = now(device);
  if (!gpu) return NOT_FOUND;
  memory->total = gpu->total << 20;
  memory->free = gpu->free << 20;
  memory->used = memory->total - memory->free;
  return OK;
}

int nvmlDeviceGetUtilizationRates(void *device, Utilisation *rates) {
  Gpu *gpu = now(device);
  if (!gpu) return NOT_FOUND;
  rates->gpu = rates->memory = gpu->utilisation;
  return OK;
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) {
  Gpu *gpu = now(device);
  if (!gpu || sensor != 0) return NOT_FOUND;
  *celsius = gpu->temperature;
  return OK;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) {
  Gpu *gpu = now(device);
  if (!gpu) return NOT_FOUND;
  if (!gpu->power) return NOT_SUPPORTED; /* as of some GPUs */
  *milliwatts = gpu->power;
  return OK;
}

int nvmlDeviceGetTotalEccErrors(void *device, int type, int counter, unsigned long long *count) {
  Gpu *gpu = now(device);
  if (!gpu || type != 1 || counter != 0) return NOT_FOUND; /* uncorrected, volatile */
  *count = gpu->ecc;
  return OK;
}

int nvmlEventSetCreate(void **events) { *events = reported; return OK; }
int nvmlDeviceRegisterEvents(void *device, unsigned long long types, void *events) {
  (void)device;
  return types == XID && events == reported ? OK : NOT_SUPPORTED;
}

int nvmlEventSetWait_v2(void *events, Event *event, unsigned milliseconds) {
  unsigned count = read_gpus();
  (void)events;
  (void)milliseconds;
  for (unsigned index = 0; index < count; index++) {
    if (gpus[index].xid != reported[index]) {
      reported[index] = gpus[index].xid;
      *event = (Event){ (void *)(unsigned long)(index + 1), XID, gpus[index].xid, 0, 0 };
      return OK;
    }
  }
  return TIMEOUT;
}
