from tests.support.world import *
import time
def test_smoke(world: World) -> None:
    world.orders((1,'a','2024-01-01'),(2,'b','2024-01-02'))
    ps=world.pipelines(*MODES)
    for i in range(3):
        t=time.time(); rs=world.run(*ps); print(i, time.time()-t, [(r.pipeline_id, r.state.value, r.error, r.seconds.total) for r in rs])
        t=time.time(); world.assert_equal(*ps); print(time.time()-t, [world.version(p) for p in ps])
        world.insert((i+10,'c','2024-01-03'))
