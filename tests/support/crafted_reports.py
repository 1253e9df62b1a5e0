"""Reports as kernels print them, made up for the tests: in the form of each architecture."""

from __future__ import annotations

X86 = """\
[   20.495160] BUG: kernel NULL pointer dereference, address: 0000000000000018
[   20.495710] #PF: supervisor write access in kernel mode
[   20.495879] #PF: error_code(0x0002) - not-present page
[   20.496182] PGD 271a067 P4D 271a067 PUD 2711067 PMD 0
[   20.496855] Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI
[   20.507094] CPU: 1 UID: 0 PID: 215 Comm: my shell Tainted: G        W  OE      6.12.1-cloud-amd64 #1  Debian 6.12.1-1
[   20.507889] Tainted: [W]=WARN, [O]=OOT_MODULE, [E]=UNSIGNED_MODULE
[   20.508099] Hardware name: QEMU Standard PC (i440FX + PIIX, 1996), BIOS 1.16.2 04/01/2014
[   20.508468] RIP: 0010:plant_grow.constprop.0+0x5/0x20 [plant]
[   20.509052] Code: 0f 1f 44 00 00 <48> 8b 04 25 18 00 00 00
[   20.509582] RSP: 0018:ffffcf3a404abd68 EFLAGS: 00000202
[   20.509784] RAX: 0000000000000001 RBX: ffff8ce681cccb48 RCX: 0000000000000005
[   20.519137] FS:  00000000019d13c0(0000) GS:ffff8ce68b700000(0000) knlGS:0000000000000000
[   20.519333] CS:  0010 DS: 0000 ES: 0000 CR0: 0000000080050033
[   20.519462] CR2: 0000000000000018 CR3: 000000000235c000 CR4: 0000000000750ef0
[   20.520014] Call Trace:
[   20.521166]  <IRQ>
[   20.521523]  plant_water+0x22/0xd20 [plant 0123456789abcdef0123456789abcdef01234567]
[   20.521899]  ? rest+0x98/0xf0
[   20.527120]  </IRQ>
[   20.527128]  <TASK>
[   20.527523]  vfs_write+0x28f/0x450
[   20.528622] RIP: 0033:0x47b7a0
[   20.529630] RSP: 002b:00007ffc6dbadfa8 EFLAGS: 00000202 ORIG_RAX: 0000000000000001
[   20.529832] RAX: ffffffffffffffda RBX: 0000000000000001 RCX: 000000000047b7a0
[   20.539758]  </TASK>
[   20.539941] Modules linked in: plant(OE+) loop qemu_fw_cfg [last unloaded: weed(E)]
[   20.540678] CR2: 0000000000000018
[   20.541335] ---[ end trace 0000000000000000 ]---
[   20.541665] RIP: 0010:plant_grow.constprop.0+0x5/0x20 [plant]
[   20.548814] RAX: 0000000000000001 RBX: ffff8ce681cccb48 RCX: 0000000000000005
[   20.563020] Kernel panic - not syncing: Fatal exception
[   20.564665] Kernel Offset: 0x29600000 from 0xffffffff81000000
[   20.565558] ---[ end Kernel panic - not syncing: Fatal exception ]---
"""
ARM64 = """\
[   13.812885] Unable to handle kernel paging request at virtual address ffffabbf2ebad058
[   13.813240] Mem abort info:
[   13.813293]   ESR = 0x0000000096000046
[   13.813365]   EC = 0x25: DABT (current EL), IL = 32 bits
[   13.813780]   CM = 0, WnR = 1, TnD = 0, TagAccess = 0
[   13.838861] Internal error: Oops: 0000000096000046 [#1] SMP
[   13.839203] Modules linked in: plant(OE) overlay
[   13.840094] CPU: 0 PID: 219 Comm: sh Not tainted 6.1.0-arm64 #1  Debian 6.1.1-1
[   13.840474] Hardware name: linux,dummy-virt (DT)
[   13.840732] pstate: 01400005 (nzcv daif +PAN -UAO -TCO +DIT -SSBS BTYPE=--)
[   13.840850] pc : plant_grow+0xc/0x20 [plant]
[   13.841227] lr : plant_water+0x34/0xcf0 [plant]
[   13.841312] sp : ffff80008064ba80
[   13.841368] x29: ffff80008064ba80 x28: fff00000038e9280 x27: 0000000000000000
[   13.842187] x8 : 000000000c000000 x7 : 0000000000000018 x6 : fff0000003265a65
[   13.867348] Call trace:
[   13.867422]  plant_grow+0xc/0x20 [plant]
[   13.867711]  plant_timer+0xac/0x108 [plant]
[   13.867827]  el1h_64_irq+0x64/0x68
[   13.868091]  cpu_idle+0x248/0x3b8
[   13.868928] Code: ffffa1ca aa1e03e9 d2800000 (f9400c00)
[   13.869365] ---[ end trace 0000000000000000 ]---
"""
I386 = """\
BUG: unable to handle kernel NULL pointer dereference at 00000010
IP: [<c10a2b3c>] plant_grow+0xc/0x20
*pde = 00000000
Oops: 0002 [#1] SMP
Modules linked in: plant(O)

Pid: 1234, comm: sh Tainted: G           O 3.2.0-4-686-pae #1 Debian 3.2.60-1 QEMU
EIP: 0060:[<c10a2b3c>] EFLAGS: 00010246 CPU: 0
EIP is at plant_grow+0xc/0x20
EAX: 00000000 EBX: c1234567 ECX: 00000001 EDX: 00000002
ESI: f6000000 EDI: f6000004 EBP: f6001f00 ESP: f6001ee0
 DS: 007b ES: 007b FS: 00d8 GS: 00e0 SS: 0068
Process sh (pid: 1234, ti=f6000000 task=f6500000 task.ti=f6000000)
Stack:
 c10b0000 f6001f10 00000002 00000003
 f6001f14
Call Trace:
 [<c10b0123>] ? plant_water+0x23/0x40
 [<c10b1234>] sys_write+0x34/0x60
Code: 55 89 e5 <89> 50 10 5d c3
EIP: [<c10a2b3c>] plant_grow+0xc/0x20 SS:ESP 0068:f6001ee0
CR2: 0000000000000010
---[ end trace 0123456789abcdef ]---
"""
ARM = """\
Unable to handle kernel paging request at virtual address ffffffe0
pgd = c0004000
[ffffffe0] *pgd=9fffd821
Internal error: Oops: 805 [#1] SMP ARM
Modules linked in:
CPU: 0 PID: 1 Comm: swapper/0 Not tainted 4.19.0 #1
Hardware name: ARM-Versatile Express
PC is at plant_grow+0x10/0x20
LR is at plant_water+0x20/0x40
pc : [<c0101234>]    lr : [<c0105678>]    psr: 60000013
sp : ee8a5e80  ip : 00000000  fp : ee8a5e94
r10: 00000000  r9 : c0d05d00  r8 : 00000000
Flags: nZCv  IRQs on  FIQs on  Mode SVC_32  ISA ARM  Segment none
Control: 10c5387d  Table: 8000406a  DAC: 00000051
Process swapper/0 (pid: 1, stack limit = 0xee8a4210)
Stack: (0xee8a5e80 to 0xee8a6000)
5e80: 00000000 c0105678 ee8a5eac ee8a5e98
[<c0101234>] (plant_grow) from [<c0105678>] (plant_water+0x20/0x40)
[<c0105678>] (plant_water) from [<c0102754>] (do_one_initcall+0x54/0x1f4)
Code: e1a00005 e8bd8038 e3a03000 (e5830000)
---[ end trace 7f7a7b2d3e7b4c2e ]---
"""
RISCV = """\
[   20.0] Unable to handle kernel NULL pointer dereference at virtual address 0000000000000008
[   20.0] Oops [#1]
[   20.0] Modules linked in: plant
[   20.0] CPU: 0 PID: 1 Comm: init Not tainted 6.1.0 #1
[   20.0] Hardware name: riscv-virtio,qemu (DT)
[   20.0] epc : plant_grow+0x10/0x20 [plant]
[   20.0]  ra : plant_water+0x20/0x40 [plant]
[   20.0] epc : ffffffff80014264 ra : ffffffff80014274 sp : ff2000000076bd60
[   20.0]  gp : ffffffff81500000 tp : ff60000001cc8000 t0 : 0000000000000040
[   20.0] status: 0000000200000120 badaddr: 0000000000000008 cause: 000000000000000f
[   20.0] [<ffffffff80014264>] plant_grow+0x10/0x20 [plant]
[   20.0] [<ffffffff80003000>] ret_from_syscall+0x0/0x2
[   20.0] Code: 4785 c398 (9002) 0001
[   20.0] ---[ end trace 0000000000000000 ]---
"""
S390X = """\
[   20.0] Unable to handle kernel pointer dereference in virtual kernel address space
[   20.0] Oops: 0004 ilc:2 [#1] SMP
[   20.0] CPU: 0 PID: 1 Comm: init Not tainted 6.1.0 #1
[   20.0] Krnl PSW : 0704c00180000000 000003ff80123456 (plant_grow+0x16/0x40 [plant])
[   20.0]            R:0 T:1 IO:1 EX:1 Key:0 M:1 W:0 P:0 AS:3 CC:0 PM:0 RI:0 EA:3
[   20.0] Krnl GPRS: 0000000000000001 0000000000000002 0000000000000003 0000000000000004
[   20.0]            0000000000000005 0000000000000006 0000000000000007 0000000000000008
[   20.0] Krnl Code: 000003ff80123446: a7f40001		brc	15,000003ff80123448
[   20.0] Call Trace:
[   20.0]  [<000003ff80123456>] plant_grow+0x16/0x40 [plant]
[   20.0] ([<000003ff80123400>] plant_water+0x10/0x40 [plant])
[   20.0]  [<0000000000c12345>] system_call+0xdc/0x2d8
[   20.0] Last Breaking-Event-Address:
[   20.0]  [<000003ff80123400>] plant_water+0x10/0x40 [plant]
[   20.0] ---[ end trace 0000000000000000 ]---
"""
POWERPC = """\
[   20.0] kernel BUG at drivers/plant.c:12!
[   20.0] Oops: Exception in kernel mode, sig: 5 [#1]
[   20.0] LE PAGE_SIZE=64K MMU=Radix SMP NR_CPUS=2048 NUMA pSeries
[   20.0] Modules linked in: plant(O)
[   20.0] CPU: 1 PID: 215 Comm: sh Tainted: G           O       6.1.0 #1
[   20.0] NIP:  c0080000003a0128 LR: c0080000003a0120 CTR: c0000000001e3d18
[   20.0] REGS: c00000007a3ef6e0 TRAP: 0700   Tainted: G           O        (6.1.0)
[   20.0] MSR:  800000000282b033 <SF,VEC,VSX,EE,FP,ME,IR,DR,RI,LE>  CR: 28002822  XER: 20040000
[   20.0] CFAR: c0080000003a0120 IRQMASK: 0
[   20.0] GPR00: c0080000003a0120 c00000007a3ef980 c0080000003a8200 0000000000000001
[   20.0] GPR04: 0000000000000004 0000000000000005 0000000000000006 0000000000000007
[   20.0] NIP [c0080000003a0128] plant_grow+0x28/0x60 [plant]
[   20.0] LR [c0080000003a0120] plant_grow+0x20/0x60 [plant]
[   20.0] Call Trace:
[   20.0] [c00000007a3ef980] [c0080000003a0120] plant_grow+0x20/0x60 [plant] (unreliable)
[   20.0] [c00000007a3ef9b0] [c000000000538a40] vfs_write+0x100/0x4c0
[   20.0] --- interrupt: c00 at 0x7fffa8c2d0c4
[   20.0] Instruction dump:
[   20.0] 7c0802a6 60000000 f8010010 f821ffd1
[   20.0] 48000001 60000000 <0fe00000> 38210030
[   20.0] ---[ end trace 0000000000000000 ]---
"""
WARNING = """\
[   40.0] ------------[ cut here ]------------
[   40.0] the plant is too dry
[   40.0] WARNING: CPU: 1 PID: 7 at drivers/plant.c:99 plant_wilt+0x4/0x10 [plant]
[   40.0] Modules linked in: plant
[   40.0] CPU: 1 PID: 7 Comm: kworker/1:0 Not tainted 6.1.0-57-amd64 #1  Debian 6.1.1-1
[   40.0] Workqueue: events plant_work [plant]
[   40.0] RIP: 0010:plant_wilt+0x4/0x10 [plant]
[   40.0] Call Trace:
[   40.0]  <TASK>
[   40.0]  plant_work+0x1/0x2 [plant]
[   40.0]  </TASK>
[   40.0] ---[ end trace 0000000000000000 ]---
"""
PANIC = """\
[   50.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b
[   50.0] CPU: 0 PID: 1 Comm: init Not tainted 6.1.0 #1
[   50.0] Call Trace:
[   50.0]  dump_stack_lvl+0x1/0x2
[   50.0]  panic+0x1/0x2
[   50.0]  do_exit+0x1/0x2
[   50.0]  ---[ end Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b ]---
"""
ALL = (X86, ARM64, I386, ARM, RISCV, S390X, POWERPC, WARNING, PANIC)
