"""A workspace without a window and without threads: jobs are done when they are started."""

from napari.components import ViewerModel
from napari.layers import Layer

from napari_sclinguist.control.workspace import Workspace
from napari_sclinguist.layers import section_layers


def run_at_once(steps, listener):
    """Run a job to its end, as `napari_sclinguist.widgets.worker.launch` does in a thread."""
    try:
        generator = steps()
        try:
            while True:
                try:
                    listener.progressed(next(generator))
                except StopIteration as end:
                    listener.returned(end.value)
                    break
        finally:
            generator.close()
    except Exception as error:
        listener.raised(error)
    finally:
        listener.ended()
    return lambda: None


def workspace_of(*sections):
    """A workspace with sections; its ``heard`` lists the texts of the messages."""
    viewer = ViewerModel()
    workspace = Workspace(viewer, run_at_once)
    workspace.heard = []
    workspace.message.connect(lambda message: workspace.heard.append(message.text))
    for section in sections:
        for data in section_layers(section):
            viewer.add_layer(Layer.create(*data))
    return workspace
