// A page in the Azure portal (Monitor, Workbooks) that shows what the control plane tells of itself: the queries of
// infra/azure/queries, each over the window that is chosen at its top.

@description('Region of the workbook: that of the Log Analytics workspace.')
param location string

@description('Tags of the workbook.')
param tags object = {}

@description('Resource id of the Log Analytics workspace that Application Insights writes to.')
param workspaceId string

@description('Its name in the portal.')
param displayName string

var workspaceType = 'microsoft.operationalinsights/workspaces'

var panels = [
  {
    key: 'failed-runs'
    title: 'Failed runs, by pipeline and error code'
    query: loadTextContent('../queries/failed-runs.kql')
    shown: 'table'
  }
  {
    key: 'error-codes'
    title: 'Failed attempts, those that were tried again among them'
    query: loadTextContent('../queries/error-codes.kql')
    shown: 'table'
  }
  {
    key: 'lag'
    title: 'Minutes that each watermark lies behind'
    query: loadTextContent('../queries/lag.kql')
    shown: 'table'
  }
  {
    key: 'slow-launches'
    title: 'Slowest launch of each pipeline, in seconds'
    query: loadTextContent('../queries/slow-launches.kql')
    shown: 'table'
  }
  {
    key: 'dead-letters'
    title: 'Messages that were put aside'
    query: loadTextContent('../queries/dead-letters.kql')
    shown: 'table'
  }
  {
    key: 'no-tick'
    title: 'Ticks in the window: about one a minute'
    query: loadTextContent('../queries/no-tick.kql')
    shown: 'tiles'
  }
  {
    key: 'cost-by-rows'
    title: 'Engine seconds and rows of each pipeline'
    query: loadTextContent('../queries/cost-by-rows.kql')
    shown: 'table'
  }
]

var windowParameter = {
  id: guid(workspaceId, 'window')
  version: 'KqlParameterItem/1.0'
  name: 'Window'
  type: 4
  isRequired: true
  value: {
    durationMs: 86400000
  }
  typeSettings: {
    selectableValues: [
      {
        durationMs: 3600000
      }
      {
        durationMs: 86400000
      }
      {
        durationMs: 604800000
      }
      {
        durationMs: 2592000000
      }
    ]
  }
}

var header = {
  type: 9
  name: 'window'
  content: {
    version: 'KqlParameterItem/1.0'
    parameters: [windowParameter]
    style: 'pills'
    queryType: 0
    resourceType: workspaceType
  }
}

var items = [
  for panel in panels: {
    type: 3
    name: panel.key
    content: {
      version: 'KqlItem/1.0'
      title: panel.title
      query: panel.query
      size: 1
      showExportToExcel: true
      timeContextFromParameter: 'Window'
      queryType: 0
      resourceType: workspaceType
      crossComponentResources: [workspaceId]
      visualization: panel.shown
    }
  }
]

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  // The platform takes nothing but a GUID here.
  name: guid(resourceGroup().id, displayName)
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    displayName: displayName
    category: 'workbook'
    sourceId: workspaceId
    version: 'Notebook/1.0'
    serializedData: string({
      version: 'Notebook/1.0'
      items: concat([header], items)
      fallbackResourceIds: [workspaceId]
    })
  }
}
